#include "cli/help.h"

#include <algorithm>

namespace quern::cli {
namespace {

constexpr size_t kMargin = 9;         // group names
constexpr size_t kOptionColumn = 25;  // option names and their values, right of the margin
constexpr size_t kVerbColumn = 12;
constexpr const char* kHiddenMargin = "More";

std::string padded(std::string text, size_t width) {
  if (text.size() < width) text.append(width - text.size(), ' ');
  return text;
}

std::string line(const std::string& group, const std::string& name, size_t column, const std::string& description) {
  return padded(group, kMargin) + padded(name, column - 1) + " " + description + "\n";
}

void append_verbs(const CLI::App& app, std::string& out) {
  std::string shown;
  for (const CLI::App* verb : shown_verbs(app)) {
    const std::string group = verb->get_group() == shown ? "" : verb->get_group();
    shown = verb->get_group();
    out += line(group, verb->get_name(), kVerbColumn, verb->get_description());
  }
}

struct HelpLine {
  std::string name;
  std::string description;
  bool flag = false;
};

// Flags that follow one another share a line while they fit.
std::vector<HelpLine> option_lines(const std::vector<const CLI::Option*>& options) {
  constexpr size_t kMaxName = kOptionColumn - 1, kMaxDescription = 80 - kMargin - kOptionColumn;
  std::vector<HelpLine> lines;
  for (const CLI::Option* option : options) {
    HelpLine next{spelling(*option), option->get_description(), !takes_value(*option)};
    if (!lines.empty() && lines.back().flag && next.flag) {
      HelpLine joined{lines.back().name + " " + next.name, lines.back().description + " / " + next.description, true};
      if (joined.name.size() <= kMaxName && joined.description.size() <= kMaxDescription) {
        lines.back() = std::move(joined);
        continue;
      }
    }
    lines.push_back(std::move(next));
  }
  return lines;
}

void append_group(const CLI::App& app, const std::string& group, const std::string& margin, std::string& out) {
  std::string shown = margin;
  for (const HelpLine& help : option_lines(app.get_options([&](const CLI::Option* o) { return o->get_group() == group; }))) {
    out += line(shown, help.name, kOptionColumn, help.description);
    shown.clear();
  }
}

// What every verb has is left out: the text of the program names it.
void append_options(const CLI::App& app, bool all, std::string& out) {
  std::vector<std::string> groups;
  for (const CLI::Option* option : app.get_options()) {
    const std::string& group = option->get_group();
    if (!group.empty() && group != kHelpGroup && std::ranges::find(groups, group) == groups.end()) groups.push_back(group);
  }
  for (const std::string& group : groups) append_group(app, group, group, out);
  if (!all) return;
  append_group(app, "", kHiddenMargin, out);
  append_group(app, kHelpGroup, kHelpGroup, out);
}

bool has_hidden(const CLI::App& verb) {
  return !verb.get_options([](const CLI::Option* option) { return option->get_group().empty(); }).empty();
}

std::string program_help(const CLI::App& app, bool all) {
  std::string out = "Usage: quern VERB ...     (more: quern help VERB, quern --help-all)\n" + app.get_description() + ".\n";
  append_verbs(app, out);
  std::string options;
  for (const CLI::Option* option : app.get_options()) options += (options.empty() ? "" : "   ") + spelling(*option);
  out += padded("Options", kMargin) + options + "\n";
  if (!all) return out;
  for (const CLI::App* verb : shown_verbs(app)) out += "\n" + help_text(*verb, true);
  return out;
}

}  // namespace

std::vector<const CLI::App*> shown_verbs(const CLI::App& app) {
  std::vector<const CLI::App*> verbs = app.get_subcommands([](const CLI::App*) { return true; });
  std::erase_if(verbs, [](const CLI::App* verb) { return verb->get_group().empty(); });
  return verbs;
}

bool takes_value(const CLI::Option& option) { return option.get_items_expected_max() != 0; }

// "-o, --output DIR", "MODEL_DIR"
std::string spelling(const CLI::Option& option) {
  std::string text;
  if (option.get_positional() && option.get_lnames().empty()) {
    text = option.get_single_name();
  } else {
    for (const std::string& name : option.get_snames()) text += (text.empty() ? "-" : ", -") + name;
    for (const std::string& name : option.get_lnames()) text += (text.empty() ? "--" : ", --") + name;
    if (takes_value(option)) text += " " + option.get_type_name();
  }
  if (option.get_expected_max() > 1) text += "...";
  return text;
}

std::string usage(const CLI::App& verb) {
  std::string text = "quern " + verb.get_name();
  for (const CLI::Option* option : verb.get_options([](const CLI::Option* o) { return o->get_positional(); })) {
    const std::string name = spelling(*option);
    text += option->get_required() ? " " + name : " [" + name + "]";
  }
  return text + " [options]";
}

std::string help_text(const CLI::App& app, bool all) {
  if (app.get_parent() == nullptr) return program_help(app, all);
  std::string out = "Usage: " + usage(app) + (all || !has_hidden(app) ? "\n" : "  (all of them: --help-all)\n");
  out += app.get_description() + ".\n";
  append_options(app, all, out);
  if (!app.get_footer().empty()) out += "Example: " + app.get_footer() + "\n";
  return out;
}

}  // namespace quern::cli
