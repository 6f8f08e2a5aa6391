#include "convert/record/build_record_json.h"
#include "tests/fuzz/fuzz.h"
#include "verify/records/manifest.h"
#include "verify/records/signature.h"

namespace {

// What is accepted can be written, and reads the same again.
void read_manifest_again(std::string_view text) {
  const std::string written = quern::manifest_to_json(quern::manifest_from_json(text));
  QUERN_CHECK(quern::manifest_to_json(quern::manifest_from_json(written)) == written);
}

void read_record_again(std::string_view text) {
  const std::string written = quern::build_record_to_json(quern::build_record_from_json(text));
  QUERN_CHECK(quern::build_record_to_json(quern::build_record_from_json(written)) == written);
}

}  // namespace

// The same bytes as each of the documents in a published folder.
int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text = quern::test::input_text(data, size);
  quern::test::accept_errors([&] { read_manifest_again(text); });
  quern::test::accept_errors([&] { read_record_again(text); });
  quern::test::accept_errors([&] { quern::parse_sums(text); });
  quern::test::accept_errors([&] { quern::statement_subjects(quern::parse_envelope(text).payload); });
  quern::test::accept_errors([&] { quern::statement_subjects(text); });
  return 0;
}
