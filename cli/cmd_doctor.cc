#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/cli.h"
#include "cli/progress_bar.h"
#include "formats/base/parallel.h"
#include "formats/base/resources.h"
#include "verify/intact/doctor.h"

namespace quern::cli {
namespace {

using nlohmann::ordered_json;

struct DoctorOptions {
  std::string path;
  bool json = false;
};

const char* word(Severity severity) {
  return severity == Severity::kBroken ? "broken" : severity == Severity::kWarning ? "warning" : "note";
}

void print_text(const Diagnosis& diagnosis) {
  for (const Symptom& symptom : diagnosis.symptoms) {
    std::cout << word(symptom.severity) << ": " << (symptom.where.empty() ? "" : printable(symptom.where) + ": ") << symptom.message
              << '\n';
  }
  const char* verdict = diagnosis.symptoms.empty() ? "nothing suspicious"
                        : diagnosis.broken()       ? "something is broken"
                                                   : "nothing is broken";
  std::cout << verdict << " in " << diagnosis.n_files << (diagnosis.n_files == 1 ? " file, " : " files, ") << diagnosis.n_tensors
            << " tensors, " << format_size(diagnosis.bytes_read) << '\n';
}

void print_json(const Diagnosis& diagnosis) {
  ordered_json symptoms = ordered_json::array();
  for (const Symptom& symptom : diagnosis.symptoms) {
    symptoms.push_back({{"severity", word(symptom.severity)}, {"where", symptom.where}, {"message", symptom.message}});
  }
  const ordered_json root = {{"schema", "quern.doctor/1"}, {"broken", diagnosis.broken()},   {"symptoms", symptoms},
                             {"files", diagnosis.n_files}, {"tensors", diagnosis.n_tensors}, {"bytes_read", diagnosis.bytes_read}};
  std::cout << root.dump(1, ' ', false, ordered_json::error_handler_t::replace) << '\n';
}

int run_doctor(const DoctorOptions& options) {
  const ThreadLimit limit(0);
  ProgressBar bar;
  const Diagnosis diagnosis = examine(options.path, bar);
  options.json ? print_json(diagnosis) : print_text(diagnosis);
  return diagnosis.broken() ? exit_code(ErrorKind::kGate) : 0;
}

}  // namespace

void add_doctor(CLI::App& app, Context& context) {
  const auto options = std::make_shared<DoctorOptions>();
  CLI::App* verb = app.add_subcommand("doctor", "Say what is suspicious in a model that anybody made");
  verb->group("Look")->footer("quern doctor downloaded.gguf");
  verb->add_option("PATH", options->path, "GGUF or safetensors file, checkpoint folder")->required()->group("Input");
  verb->add_flag("--json", options->json, "results as JSON on stdout")->group("Run");
  verb->callback([options, &context] { context.command = [options] { return run_doctor(*options); }; });
}

}  // namespace quern::cli
