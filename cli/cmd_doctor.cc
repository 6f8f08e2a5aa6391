#include <iostream>
#include <memory>

#include "cli/cli.h"
#include "cli/progress_bar.h"
#include "formats/base/counted.h"
#include "formats/base/parallel.h"
#include "formats/base/resources.h"
#include "verify/intact/doctor.h"

namespace quern::cli {
namespace {

struct DoctorOptions {
  std::string path;
  bool json = false;
};

void print_text(const Diagnosis& diagnosis) {
  for (const Symptom& symptom : diagnosis.symptoms) {
    std::cout << name_of(symptom.severity) << ": " << (symptom.where.empty() ? "" : printable(symptom.where) + ": ") << symptom.message
              << '\n';
  }
  std::cout << (diagnosis.broken() ? "something is broken in " : "nothing is broken in ") << counted(diagnosis.n_files, "file") << ", "
            << counted(diagnosis.n_tensors, "tensor") << ", " << format_size(diagnosis.bytes_read) << '\n';
}

int run_doctor(const DoctorOptions& options) {
  const ThreadLimit limit(0);
  ProgressBar bar;
  const Diagnosis diagnosis = examine(options.path, bar);
  if (options.json) {
    std::cout << diagnosis_to_json(diagnosis);
  } else {
    print_text(diagnosis);
  }
  return diagnosis.broken() ? exit_code(ErrorKind::kGate) : 0;
}

}  // namespace

void add_doctor(CLI::App& app, Context& context) {
  const auto options = std::make_shared<DoctorOptions>();
  CLI::App* verb = app.add_subcommand("doctor", "Say what is suspicious in a model that anybody made");
  verb->group("Look")->footer("quern doctor downloaded.gguf");
  verb->add_option("PATH", options->path, "GGUF or safetensors file, or a folder of them")->required()->group("Input");
  verb->add_flag("--json", options->json, "results as JSON on stdout")->group("Run");
  verb->callback([options, &context] { context.command = [options] { return run_doctor(*options); }; });
}

}  // namespace quern::cli
