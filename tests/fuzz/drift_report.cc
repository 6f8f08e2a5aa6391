#include "tests/fuzz/fuzz.h"
#include "verify/report/report.h"

// What is accepted can be drawn, and compared with itself.
int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  quern::test::accept_errors([&] {
    const quern::Report report = quern::report_from_drift(quern::drift_from_json(quern::test::input_text(data, size)), {});
    QUERN_CHECK(quern::report_html(report) == quern::report_html(report));
    static_cast<void>(quern::comparison_html(report, report));
  });
  return 0;
}
