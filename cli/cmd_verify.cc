#include <iostream>
#include <memory>
#include <random>
#include <regex>

#include "cli/cli.h"
#include "cli/progress_bar.h"
#include "formats/base/parallel.h"
#include "verify/intact/verify.h"

namespace quern::cli {
namespace {

struct VerifyFlags {
  std::string path, key, source, imatrix, calib_text, statistics, sample, tensors;
  std::optional<uint64_t> seed;
  bool all = false;
  int threads = 0;
  bool json = false;
};

// "5%" or "0.05".
double parse_share(const std::string& text) {
  char* end = nullptr;
  double share = std::strtod(text.c_str(), &end);
  if (std::string_view(end) == "%") {
    share /= 100;
    ++end;
  }
  if (end == text.c_str() || *end != '\0' || !(share > 0) || share > 1) {
    throw Error(ErrorKind::kUsage, "--sample: '" + printable(text) + "' is not a share, as 5% or 0.05");
  }
  return share;
}

VerifyOptions options_of(const VerifyFlags& flags) {
  VerifyOptions options;
  options.path = flags.path;
  if (!flags.key.empty()) options.public_key = flags.key;
  if (!flags.source.empty()) options.source = flags.source;
  if (!flags.imatrix.empty()) options.imatrix = flags.imatrix;
  options.statistics = flags.statistics;
  options.calib_text = flags.calib_text;
  if (flags.source.empty() && (flags.all || !flags.sample.empty() || !flags.tensors.empty())) {
    throw Error(ErrorKind::kUsage, "--sample, --tensor and --all need --source");
  }
  if ((flags.all ? 1 : 0) + (flags.sample.empty() ? 0 : 1) + (flags.tensors.empty() ? 0 : 1) > 1) {
    throw Error(ErrorKind::kUsage, "--sample, --tensor and --all exclude each other");
  }
  if (flags.all) options.sample = 1;
  if (!flags.sample.empty()) options.sample = parse_share(flags.sample);
  if (!flags.tensors.empty()) {
    options.tensors = flags.tensors;
    try {
      const std::regex compiled(flags.tensors);
    } catch (const std::regex_error&) {
      throw Error(ErrorKind::kUsage, "--tensor: '" + printable(flags.tensors) + "' is not a regular expression");
    }
  }
  options.seed = flags.seed ? *flags.seed : std::random_device()();
  return options;
}

void print_text(const VerifyReport& report) {
  size_t width = 0;
  for (const Check& check : report.checks) width = std::max(width, check.name.size());
  for (const Check& check : report.checks) {
    const std::string state = name_of(check.state);
    std::cout << check.name << std::string(width - check.name.size() + 2, ' ') << state << std::string(9 - state.size(), ' ')
              << check.detail << '\n';
  }
  for (const Finding& finding : report.findings) std::cout << name_of(finding.verdict) << ": " << to_string(finding) << '\n';
  std::cout << report.verdict << '\n';
}

int run_verify(const VerifyFlags& flags) {
  const ThreadLimit limit(flags.threads);
  const VerifyOptions options = options_of(flags);
  ProgressBar bar;
  const VerifyReport report = verify(options, bar);
  if (flags.json) {
    std::cout << verify_to_json(report, options.seed);
  } else {
    print_text(report);
  }
  if (report.count(Verdict::kDamage) > 0) return exit_code(ErrorKind::kGate);
  return report.count(Verdict::kUnprovable) > 0 ? exit_code(ErrorKind::kIo) : 0;
}

}  // namespace

void add_verify(CLI::App& app, Context& context) {
  const auto flags = std::make_shared<VerifyFlags>();
  CLI::App* verb = app.add_subcommand("verify", "Check a build against what its publisher recorded");
  verb->group("Publish")->footer("quern verify repo --key release.pub.pem --source DeepSeek-V3");
  verb->add_option("PATH", flags->path, "published folder, a part of it, or a GGUF file")->required()->group("Input");
  verb->add_option("--key", flags->key, "public key that must have signed it")->type_name("PUB.pem")->group("Input");
  verb->add_option("--source", flags->source, "derive tensors again from this checkpoint")->type_name("DIR")->group("Source");
  verb->add_option("--imatrix", flags->imatrix, "it was made with; default: the published one")->type_name("FILE")->group("Source");
  verb->add_option("--calib-text", flags->calib_text, "of its error feedback, to run again")->type_name("FILE")->group("Source");
  verb->add_option("--statistics", flags->statistics, "or the statistics made of it")->type_name("FOLDER")->group("Source");
  verb->add_option("--sample", flags->sample, "share of every tensor's chunks; default 5%")->type_name("SHARE")->group("Source");
  verb->add_option("--tensor", flags->tensors, "these only, completely")->type_name("REGEX")->group("Source");
  verb->add_flag("--all", flags->all, "everything, and the sums of the checkpoint")->group("Source");
  verb->add_option("--seed", flags->seed, "of the sample; default: random, shown")->type_name("N")->group("Source");
  verb->add_option("--threads", flags->threads, "1 or more; default: all the process may use")
      ->type_name("N")
      ->check(at_least_one)
      ->group("Run");
  verb->add_flag("--json", flags->json, "results as JSON on stdout")->group("Run");
  verb->callback([flags, &context] { context.command = [flags] { return run_verify(*flags); }; });
}

}  // namespace quern::cli
