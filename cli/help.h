#pragma once

#include <string>
#include <vector>

#include "cli/cli.h"

namespace quern::cli {

// What the definitions of the verbs say, for people: CLI11 is the one table that help, manual page and completions are made of.

// Of an option that stands in the program only in --help-all, the group is "".
inline constexpr const char* kHelpGroup = "Help";  // of the options that every verb has

std::vector<const CLI::App*> shown_verbs(const CLI::App& app);

// "-o, --output DIR", "MODEL_DIR"
std::string spelling(const CLI::Option& option);
// "quern convert [MODEL] [options]"
std::string usage(const CLI::App& verb);
// Whether what follows the name is its value.
bool takes_value(const CLI::Option& option);

// Help text of one screen: groups in the left margin, one line per option, the example last. all: with the options that have no room
// there; of the program itself, with the texts of all verbs.
std::string help_text(const CLI::App& app, bool all);

// Sections of the manual page, a verb each, in roff.
std::string man_text(const CLI::App& app);
// A file for the completions of a shell: "bash", "zsh" or "fish". Throws kUsage for another.
std::string completion_text(const CLI::App& app, const std::string& shell);

}  // namespace quern::cli
