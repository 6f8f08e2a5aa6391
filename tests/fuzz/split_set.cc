#include "formats/base/bytes.h"
#include "formats/checkpoint/gguf_source.h"
#include "tests/formats/builders.h"
#include "tests/fuzz/fuzz.h"

// A set of two shards: a u16 with the length of the first, then both. What is accepted is read as a model.
int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const quern::test::TempDir folder("/dev/shm");  // the names of shards lead from one to the other, so files it must be
  const std::span<const std::byte> bytes = quern::test::input_bytes(data, size);
  if (size < 2) return 0;
  const size_t first_bytes = std::min<size_t>(quern::load_le<uint16_t>(bytes.data()), size - 2);
  const std::filesystem::path first = folder / "m-00001-of-00002.gguf";
  quern::test::write_bytes(first, bytes.subspan(2, first_bytes));
  quern::test::write_bytes(folder / "m-00002-of-00002.gguf", bytes.subspan(2 + first_bytes));
  quern::test::accept_errors([&] {
    const quern::GgufSource source{quern::gguf::File(first)};
    for (size_t t = 0; t < source.tensors().size(); ++t) {
      const quern::LogicalTensor& tensor = source.tensors()[t];
      quern::RawRows raw;
      source.fetch(t, 0, tensor.shape.n_rows(), raw);
      std::vector<float> weights(static_cast<size_t>(tensor.shape.n_elements()));
      if (tensor.keep != quern::Keep::kInteger) source.decode(raw, weights);
    }
  });
  return 0;
}
