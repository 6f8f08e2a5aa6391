#include "runtime/observe/imatrix_collector.h"

#include <gtest/gtest.h>

#include <limits>

#include "tests/formats/expect_error.h"

namespace quern {
namespace {

TEST(ImatrixCollector, RefusesInputsThatAreNotFinite) {
  LogicalTensor tensor;
  tensor.name = "blk.0.attn_q.weight";
  tensor.shape = Shape{2, 4};
  const std::string_view names[] = {tensor.name};
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), 2e19f}) {
    const std::vector<float> rows = {1, 2, 3, 4, 5, bad, 7, 8};
    const PackedRows packed(rows.data(), 2, 4, 4);
    ImatrixCollector collector(std::span(&tensor, 1));
    collector.observe({names, -1, &packed, {}});
    EXPECT_ERROR(collector.take(), ErrorKind::kFormat, "tensor 'blk.0.attn_q.weight': its inputs are NaN or infinite");
  }
}

}  // namespace
}  // namespace quern
