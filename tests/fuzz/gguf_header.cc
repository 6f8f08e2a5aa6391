#include "formats/gguf/gguf.h"
#include "tests/fuzz/fuzz.h"

namespace {

// What the reader accepts, the writer can write, and it reads back the same.
void check_round_trip(const quern::gguf::Header& header) {
  namespace gguf = quern::gguf;
  const std::vector<std::byte> bytes = gguf::serialize_header(header.metadata, header.tensors, header.alignment);
  const uint64_t blob_bytes = gguf::layout(header.tensors, header.alignment).blob_bytes;
  const gguf::Header again = gguf::parse_header(bytes, bytes.size() + blob_bytes);
  QUERN_CHECK(again.data_offset == header.data_offset);
  QUERN_CHECK(again.metadata.entries().size() == header.metadata.entries().size());
  QUERN_CHECK(again.tensors.size() == header.tensors.size());
  for (size_t i = 0; i < again.tensors.size(); ++i) QUERN_CHECK(again.tensors[i].file_offset == header.tensors[i].file_offset);
}

}  // namespace

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::optional<quern::gguf::Header> header;
  quern::test::accept_errors([&] { header = quern::gguf::parse_header(quern::test::input_bytes(data, size), size); });
  constexpr uint64_t kMaxPadding = 4096;  // writing pads to the alignment, which may be 2 GiB
  if (header && header->alignment <= kMaxPadding) check_round_trip(*header);
  return 0;
}
