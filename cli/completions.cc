#include <algorithm>
#include <array>
#include <functional>
#include <span>

#include "cli/help.h"
#include "recipes/machines.h"
#include "recipes/recipe.h"

// Every shell is told the same: the verbs, their options, which of these take a value, and the words that a value may be. The words are
// those that the program knows as it writes the file.

namespace quern::cli {
namespace {

using Options = std::vector<const CLI::Option*>;

// The text with a backslash before each of `special`.
std::string escaped(std::string_view text, std::string_view special) {
  std::string out;
  for (const char c : text) {
    if (special.find(c) != std::string_view::npos) out += '\\';
    out += c;
  }
  return out;
}

// For bash and zsh, within single quotes.
std::string single_quoted(std::string_view text) {
  std::string out;
  for (const char c : text) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return "'" + out + "'";
}

std::string joined(std::span<const std::string> words) {
  std::string out;
  for (const std::string& word : words) out += (out.empty() ? "" : " ") + word;
  return out;
}

Options named_options(const CLI::App& verb) {
  return verb.get_options([](const CLI::Option* option) { return !option->get_lnames().empty() || !option->get_snames().empty(); });
}

std::vector<std::string> spellings(const CLI::Option& option) {
  std::vector<std::string> names;
  for (const std::string& name : option.get_snames()) names.push_back("-" + name);
  for (const std::string& name : option.get_lnames()) names.push_back("--" + name);
  return names;
}

std::vector<std::string> type_words() {
  std::vector<std::string> words;
  for (const Mix& mix : all_mixes()) words.emplace_back(mix.name);
  return words;
}

std::vector<std::string> recipe_words() {
  std::vector<std::string> words;
  for (const Recipe& recipe : shipped_recipes()) words.push_back(recipe.name);
  return words;
}

std::vector<std::string> machine_words() {
  std::vector<std::string> words;
  for (const Machine& machine : all_machines()) words.push_back(machine.id);
  return words;
}

// The words that the value of an option may be; none where it is a file or a number.
std::vector<std::string> value_words(const CLI::Option& option) {
  const std::string name = option.get_lnames().empty() ? "" : option.get_lnames().front();
  if (name == "type") return type_words();
  if (name == "recipe") return recipe_words();
  if (name == "machine") return machine_words();
  return {};
}

std::vector<std::string> verb_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* verb : shown_verbs(app)) names.push_back(verb->get_name());
  names.emplace_back("help");
  return names;
}

// --- bash ---

std::string bash_verb(const CLI::App& verb) {
  std::vector<std::string> names;
  for (const CLI::Option* option : named_options(verb)) {
    for (const std::string& name : spellings(*option)) names.push_back(name);
  }
  return "    " + verb.get_name() + ") words=" + single_quoted(joined(names)) + " ;;\n";
}

std::string bash_text(const CLI::App& app) {
  std::string out =
      "# bash completion of quern, as 'quern generate bash' writes it\n"
      "_quern() {\n"
      "  local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} words=\n"
      "  case $previous in\n";
  out += "    --type) COMPREPLY=($(compgen -W " + single_quoted(joined(type_words())) + " -- \"$current\")); return ;;\n";
  out += "    --recipe) COMPREPLY=($(compgen -f -W " + single_quoted(joined(recipe_words())) + " -- \"$current\")); return ;;\n";
  out += "    --machine) COMPREPLY=($(compgen -W " + single_quoted(joined(machine_words())) + " -- \"$current\")); return ;;\n";
  out +=
      "  esac\n"
      "  case $COMP_CWORD:${COMP_WORDS[1]} in\n"
      "    1:* | 2:help) COMPREPLY=($(compgen -W " +
      single_quoted(joined(verb_names(app))) +
      " -- \"$current\")); return ;;\n"
      "  esac\n"
      "  case ${COMP_WORDS[1]} in\n";
  for (const CLI::App* verb : shown_verbs(app)) out += bash_verb(*verb);
  return out +
         "  esac\n"
         "  if [[ $current == -* ]]; then\n"
         "    COMPREPLY=($(compgen -W \"$words\" -- \"$current\"))\n"
         "  else\n"
         "    COMPREPLY=($(compgen -f -- \"$current\"))\n"
         "  fi\n"
         "}\n"
         "complete -o filenames -F _quern quern\n";
}

// --- zsh ---

std::string zsh_option(const CLI::Option& option) {
  std::string out;
  const std::vector<std::string> words = value_words(option);
  for (const std::string& name : spellings(option)) {
    std::string spec = (option.get_expected_max() > 1 ? "*" : "") + name + "[" + escaped(option.get_description(), "[]:\\") + "]";
    if (takes_value(option)) {
      spec += ":" + escaped(option.get_type_name(), ":") + ":" + (words.empty() ? "_files" : "(" + joined(words) + ")");
    }
    out += " \\\n        " + single_quoted(spec);
  }
  return out;
}

std::string zsh_text(const CLI::App& app) {
  std::string out =
      "#compdef quern\n"
      "# zsh completion of quern, as 'quern generate zsh' writes it\n"
      "_quern() {\n"
      "  local -a verbs=(\n";
  for (const CLI::App* verb : shown_verbs(app)) {
    out += "    " + single_quoted(verb->get_name() + ":" + escaped(verb->get_description(), ":")) + "\n";
  }
  out +=
      "  )\n"
      "  if (( CURRENT == 2 )); then\n"
      "    _describe verb verbs\n"
      "    return\n"
      "  fi\n"
      "  local verb=$words[2]\n"
      "  shift words\n"
      "  (( CURRENT-- ))\n"
      "  case $verb in\n"
      "    help) _describe verb verbs ;;\n";
  for (const CLI::App* verb : shown_verbs(app)) {
    out += "    " + verb->get_name() + ")\n      _arguments -s";
    for (const CLI::Option* option : named_options(*verb)) out += zsh_option(*option);
    out += " \\\n        '*:file:_files' ;;\n";
  }
  return out +
         "  esac\n"
         "}\n"
         "_quern \"$@\"\n";
}

// --- fish ---

std::string fish_quoted(std::string_view text) { return "'" + escaped(text, "'\\") + "'"; }

std::string fish_option(const CLI::App& verb, const CLI::Option& option) {
  std::string out = "complete -c quern -n '__fish_seen_subcommand_from " + verb.get_name() + "'";
  for (const std::string& name : option.get_snames()) out += " -s " + name;
  for (const std::string& name : option.get_lnames()) out += " -l " + name;
  const std::vector<std::string> words = value_words(option);
  if (!words.empty()) {
    out += " -x -a " + fish_quoted(joined(words));
  } else if (takes_value(option)) {
    out += " -r";
  }
  return out + " -d " + fish_quoted(option.get_description()) + "\n";
}

std::string fish_text(const CLI::App& app) {
  std::string out =
      "# fish completion of quern, as 'quern generate fish' writes it\n"
      "complete -c quern -f -n __fish_use_subcommand -a help -d 'Say how a verb is used'\n"
      "complete -c quern -f -n '__fish_seen_subcommand_from help' -a " +
      fish_quoted(joined(verb_names(app))) + "\n";
  for (const CLI::App* verb : shown_verbs(app)) {
    out += "complete -c quern -f -n __fish_use_subcommand -a " + verb->get_name() + " -d " + fish_quoted(verb->get_description()) + "\n";
    for (const CLI::Option* option : named_options(*verb)) out += fish_option(*verb, *option);
  }
  return out;
}

}  // namespace

std::string completion_text(const CLI::App& app, const std::string& shell) {
  if (shell == "bash") return bash_text(app);
  if (shell == "zsh") return zsh_text(app);
  if (shell == "fish") return fish_text(app);
  throw Error(ErrorKind::kUsage, "'" + printable(shell) + "' is not bash, zsh or fish");
}

}  // namespace quern::cli
