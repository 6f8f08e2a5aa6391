#include <algorithm>
#include <csignal>
#include <exception>
#include <iostream>
#include <new>
#include <string>
#include <string_view>
#include <vector>

#include <unistd.h>

#include "cli/help.h"
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

void add_common(CLI::App& app, bool& quiet) {
  app.set_help_flag("-h,--help", "this text")->group(kHelpGroup);
  app.set_help_all_flag("--help-all", "with the options that have no room there")->group(kHelpGroup);
  app.add_flag("-q,--quiet", quiet, "only results, warnings and errors")->group(kHelpGroup);
}

void build(CLI::App& app, Context& context, bool& quiet) {
  add_common(app, quiet);
  app.set_version_flag("-v,--version", std::string("quern ") + kVersion, "print the version")->group(kHelpGroup);
  app.require_subcommand(1);
#define QUERN_VERB(name) add_##name(app, context);
#include "cli/verbs.inc"
#undef QUERN_VERB
  for (CLI::App* verb : app.get_subcommands([](const CLI::App*) { return true; })) add_common(*verb, quiet);
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
    for (const CLI::App* other : shown_verbs(app)) names.push_back(other->get_name());
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

// "--type: 1 required TYPE missing" of CLI11.
std::string describe_mismatch(std::string_view what) {
  const size_t colon = what.find(": "), required = what.find(" required "), missing = what.find(" missing");
  if (colon == std::string_view::npos || required == std::string_view::npos || missing == std::string_view::npos) return printable(what);
  const size_t type = required + std::string_view(" required ").size();
  return std::string(what.substr(0, colon)) + " needs a value, " + std::string(what.substr(type, missing - type));
}

// Something is required and not there. A word that has no place may be what was meant for it.
std::string describe_required(const CLI::App& app, std::string_view what) {
  const CLI::App* verb = chosen_verb(app);
  const std::vector<std::string> rest = app.remaining(true);
  if (verb == &app) return describe_unexpected(app);
  if (rest.empty() || rest.front().starts_with("-")) return rest.empty() ? std::string(what) : describe_unexpected(app);
  return std::string(what) + ", and '" + printable(rest.front()) + "' has no place; as in: " + verb->get_footer();
}

int usage_error(const CLI::App& app, std::string message) {
  const CLI::App* verb = chosen_verb(app);
  message += verb == &app ? " (see 'quern --help')" : " (see 'quern " + verb->get_name() + " --help')";
  print_error(message);
  return exit_code(ErrorKind::kUsage);
}

// What was asked for is help or the version; a verb that does not exist has neither.
int answer(const CLI::App& app, const CLI::Success& asked) {
  if (dynamic_cast<const CLI::CallForVersion*>(&asked) != nullptr) {
    std::cout << asked.what() << '\n';
    return 0;
  }
  if (app.get_subcommands().empty() && !app.remaining(true).empty()) return usage_error(app, describe_unexpected(app));
  std::cout << help_text(*chosen_verb(app), dynamic_cast<const CLI::CallForAllHelp*>(&asked) != nullptr);
  return 0;
}

// "help VERB" is "VERB --help". In the order that CLI11 wants, the last first.
std::vector<std::string> arguments(int argc, char** argv) {
  std::vector<std::string> words(argv + std::min(argc, 1), argv + argc);
  if (!words.empty() && words.front() == "help") {
    words.erase(words.begin());
    words.emplace_back("--help");
  }
  std::ranges::reverse(words);
  return words;
}

// True when the command line names a verb to run; otherwise `code` says how to exit.
bool parse(CLI::App& app, int argc, char** argv, int& code) {
  try {
    app.parse(arguments(argc, argv));
    return true;
  } catch (const CLI::Success& asked) {
    code = answer(app, asked);
  } catch (const CLI::ExtrasError&) {
    code = usage_error(app, describe_unexpected(app));
  } catch (const CLI::RequiredError& error) {
    if (app.get_subcommands().empty() && app.remaining(true).empty()) {
      std::cerr << help_text(app, false);
      code = exit_code(ErrorKind::kUsage);
    } else {
      code = usage_error(app, describe_required(app, error.what()));
    }
  } catch (const CLI::ArgumentMismatch& error) {
    code = usage_error(app, describe_mismatch(error.what()));
  } catch (const CLI::ConversionError& error) {
    code = usage_error(app, describe_conversion(error.what()));
  } catch (const CLI::ParseError& error) {
    code = usage_error(app, printable(error.what()));
  }
  return false;
}

// An interrupted command may have left what the next one needs.
int run_command(const Context& context) {
  try {
    return context.command();
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kInterrupted) throw;
    std::cerr << "quern: interrupted" << (context.goes_on ? "; the same command goes on from what it kept" : "") << '\n';
    return exit_code(error.kind());
  }
}

int run(int argc, char** argv) {
  Context context;
  CLI::App app("Converts official LLM checkpoints to verified GGUF builds", "quern");
  bool quiet = false;
  build(app, context, quiet);
  int code = 0;
  if (parse(app, argc, argv, code)) {
    if (quiet) be_quiet();
    code = run_command(context);
  }
  std::cout.flush();
  if (!std::cout) throw Error(ErrorKind::kIo, "cannot write to standard output");
  return code;
}

}  // namespace
}  // namespace quern::cli

int main(int argc, char** argv) {
  using namespace quern;
  cli::install_signal_handlers();
  std::clog.tie(&std::cout);  // as std::cerr is: both streams in one file keep their order
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
