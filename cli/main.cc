#include <csignal>
#include <exception>
#include <iostream>
#include <new>
#include <string>
#include <string_view>
#include <vector>

#include <unistd.h>

#include "cli/cli.h"
#include "formats/base/nearest.h"
#include "formats/base/progress.h"
#include "formats/base/version.h"

namespace quern::cli {

#define QUERN_VERB(name) void add_##name(CLI::App& app, Context& context);
#include "cli/verbs.inc"
#undef QUERN_VERB

namespace {

// The first signal asks the work to stop at the next chunk; a second one ends the process at once.
extern "C" void on_signal(int) {
  static volatile std::sig_atomic_t asked = 0;
  if (asked) _exit(130);
  asked = 1;
  request_interrupt();
}

void install_signal_handlers() {
  struct sigaction action = {};
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  std::signal(SIGPIPE, SIG_IGN);  // a closed pipe is an error of the write that meets it
}

void build(CLI::App& app, Context& context) {
  app.set_version_flag("--version", std::string("quern ") + kVersion, "Print the version");
  app.set_help_flag("-h,--help", "This text; 'quern VERB --help' for a verb");
  app.get_help_ptr()->group("Help");
  app.get_version_ptr()->group("Help");
  app.require_subcommand(1);
#define QUERN_VERB(name) add_##name(app, context);
#include "cli/verbs.inc"
#undef QUERN_VERB
  app.footer("quern convert DeepSeek-V4-Flash -o out --type Q4_K_M");
  for (CLI::App* verb : app.get_subcommands([](const CLI::App*) { return true; })) {
    verb->set_help_flag("-h,--help", "This text");
    verb->get_help_ptr()->group("Help");
  }
}

const CLI::App* chosen_verb(const CLI::App& app) {
  const auto chosen = app.get_subcommands();
  return chosen.empty() ? &app : chosen.front();
}

// CLI11 reports every argument it could not place; the first one is the mistake.
std::string describe_unexpected(const CLI::App& app) {
  const CLI::App* verb = chosen_verb(app);
  const std::vector<std::string> rest = app.remaining(true);
  const std::string word = rest.empty() ? "" : rest.front().substr(0, rest.front().find('='));
  std::vector<std::string> names;
  if (word.starts_with("-")) {
    for (const CLI::Option* option : verb->get_options()) {
      for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
    }
  } else if (verb == &app) {
    for (const CLI::App* other : app.get_subcommands([](const CLI::App*) { return true; })) names.push_back(other->get_name());
  }
  const std::vector<std::string_view> candidates(names.begin(), names.end());
  const char* what = word.starts_with("-") ? "unknown option '" : verb == &app ? "unknown verb '" : "unexpected argument '";
  const char* shards =
      verb != &app && word.ends_with(".gguf") ? "; of a split model the first shard is given, which leads to the others" : "";
  return what + printable(word) + "'" + did_you_mean(word, candidates) + shards;
}

// "Could not convert: --ctx = two" of CLI11. All options that are converted are numbers.
std::string describe_conversion(std::string_view what) {
  constexpr std::string_view kBegin = "Could not convert: ", kEquals = " = ";
  const size_t equals = what.find(kEquals);
  if (!what.starts_with(kBegin) || equals == std::string_view::npos) return printable(what);
  const std::string option(what.substr(kBegin.size(), equals - kBegin.size()));
  return option + ": '" + printable(what.substr(equals + kEquals.size())) + "' is not a number";
}

int usage_error(const CLI::App& app, std::string message) {
  const CLI::App* verb = chosen_verb(app);
  message += verb == &app ? " (see 'quern --help')" : " (see 'quern " + verb->get_name() + " --help')";
  print_error(message);
  return exit_code(ErrorKind::kUsage);
}

// True when the command line names a verb to run; otherwise `code` says how to exit.
bool parse(CLI::App& app, int argc, char** argv, int& code) {
  try {
    app.parse(argc, argv);
    return true;
  } catch (const CLI::CallForHelp&) {
    std::cout << help_text(*chosen_verb(app));
    code = 0;
  } catch (const CLI::CallForVersion& version) {
    std::cout << version.what() << '\n';
    code = 0;
  } catch (const CLI::ExtrasError&) {
    code = usage_error(app, describe_unexpected(app));
  } catch (const CLI::RequiredError& error) {
    code = usage_error(app, app.get_subcommands().empty() && !app.remaining(true).empty() ? describe_unexpected(app)
                            : app.get_subcommands().empty()                               ? "a verb is required"
                                                                                          : error.what());
  } catch (const CLI::ConversionError& error) {
    code = usage_error(app, describe_conversion(error.what()));
  } catch (const CLI::ParseError& error) {
    code = usage_error(app, printable(error.what()));
  }
  return false;
}

int run(int argc, char** argv) {
  Context context;
  CLI::App app("Converts official LLM checkpoints to verified GGUF builds", "quern");
  build(app, context);
  int code = 0;
  if (!parse(app, argc, argv, code)) return code;
  code = context.command();
  std::cout.flush();
  if (!std::cout) throw Error(ErrorKind::kIo, "cannot write to standard output");
  return code;
}

}  // namespace
}  // namespace quern::cli

int main(int argc, char** argv) {
  using namespace quern;
  cli::install_signal_handlers();
  try {
    return cli::run(argc, argv);
  } catch (const Error& error) {
    cli::print_error(error.what());
    return cli::exit_code(error.kind());
  } catch (const std::bad_alloc&) {
    cli::print_error("out of memory");
  } catch (const std::exception& error) {
    cli::print_error(std::string("internal error: ") + printable(error.what()));
  }
  return cli::exit_code(ErrorKind::kInternal);
}
