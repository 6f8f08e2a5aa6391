#include "formats/base/error.h"
#include "tests/fuzz/fuzz.h"
#include "verify/report.h"

// What is accepted can be drawn, and compared with itself.
int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    const quern::Report report = quern::report_from_drift(quern::drift_from_json(text), {});
    QUERN_CHECK(quern::report_html(report) == quern::report_html(report));
    static_cast<void>(quern::comparison_html(report, report));
  } catch (const quern::Error& e) {
    if (e.kind() == quern::ErrorKind::kInternal) throw;
  }
  return 0;
}
