#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>
#include <string_view>

#include "formats/base/error.h"

namespace quern::cli {

// What a parsed command line leaves behind: the work of the verb that was named. Its result is the exit code.
struct Context {
  std::function<int()> command;
  bool goes_on = false;  // the same command, given again after an interrupt, goes on from what this one kept
};

// A verb: cli/cmd_NAME.cc defines add_NAME(), which adds a subcommand whose options live in a struct owned by its callbacks:
//
//   void add_inspect(CLI::App& app, Context& context) {
//     auto options = std::make_shared<InspectOptions>();
//     CLI::App* verb = app.add_subcommand("inspect", "Show what a file or checkpoint contains");
//     verb->add_option("PATH", options->path, "GGUF file or checkpoint folder")->required()->group("Input");
//     verb->footer("quern inspect model.gguf --tensors");       // the example at the end of --help
//     verb->callback([options, &context] { context.command = [options] { return run_inspect(*options); }; });
//   }
//
// Names of groups are at most 8 characters (they stand in the left margin of the help text), descriptions at most 46, with the
// default in the text; tests hold every help text to 23 lines of 80 characters. An option that has no room there has the group "" and is
// in --help-all, as are those that every verb has. Results go to stdout, everything else to stderr;
// failures are thrown as Error and printed by main. cli/verbs.inc is the only place that names the verbs.

int exit_code(ErrorKind kind) noexcept;

// "quern: error: MESSAGE" and "quern: warning: MESSAGE" on stderr.
void print_error(std::string_view message);
void print_warning(std::string_view message);

// What is done and what is noticed is written to std::clog, as "quern: MESSAGE" or "quern: note: MESSAGE": a second way to stderr, which
// --quiet closes.
void be_quiet();
bool is_quiet();

// For CLI::Option::check, of counts and of what parse_size() reads; errors then name the option.
std::string at_least_one(const std::string& text);
std::string a_size(const std::string& text);
// A number that something can be above: 0 or more, and finite.
std::string a_limit(const std::string& text);

// "12.3 GB of 12.4 GB", or when more was read than there is "103 MB (of 12.6 MB, 8.2 times)".
std::string amount_read(uint64_t bytes_read, uint64_t stored_bytes);

// A table for people: columns padded, the first left-aligned, the others right-aligned; ends with a newline. When its lines are longer
// than `columns`, the texts of its widest column are shortened in the middle. Without `columns`: as wide as the terminal that results go
// to, and as wide as it needs where they go elsewhere.
std::string format_table(std::vector<std::vector<std::string>> rows);
std::string format_table(std::vector<std::vector<std::string>> rows, size_t columns);

// One number by a printf format ("%.4f").
std::string number(const char* format, double value);

}  // namespace quern::cli
