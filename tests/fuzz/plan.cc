#include "convert/plan/plan.h"
#include "convert/plan/chunks.h"
#include "convert/plan/layout.h"
#include "convert/plan/plan_json.h"
#include "tests/fuzz/fuzz.h"

// What is accepted can be divided, laid out and written, and reads the same again.
int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::optional<quern::Plan> plan;
  quern::test::accept_errors([&] { plan = quern::plan_from_json(quern::test::input_text(data, size)); });
  if (!plan) return 0;
  const std::string written = quern::plan_to_json(*plan);
  const quern::Plan again = quern::plan_from_json(written);
  QUERN_CHECK(quern::plan_to_json(again) == written);
  QUERN_CHECK(quern::plan_id(again) == quern::plan_id(*plan));
  const quern::Chunks chunks(*plan);
  constexpr int64_t kParts = 7;
  int64_t next = 0;
  for (int64_t k = 0; k < kParts; ++k) {
    const quern::Chunks::Range range = chunks.part(k, kParts);
    QUERN_CHECK(range.first == next && range.last >= next);
    next = range.last;
    QUERN_CHECK(chunks.data_position(0, range.last) <= plan->outputs.front().tensor_bytes);
  }
  QUERN_CHECK(next == chunks.count());
  return 0;
}
