#include <algorithm>
#include <string>
#include <vector>

#include "cli/cli.h"

namespace quern::cli {
namespace {

constexpr size_t kMargin = 9;  // group names
const std::string kHelpGroup = "Help";
constexpr size_t kOptionColumn = 25;  // option names and their values, right of the margin
constexpr size_t kVerbColumn = 12;

std::string padded(std::string text, size_t width) {
  if (text.size() < width) text.append(width - text.size(), ' ');
  return text;
}

// "-o, --output DIR", "MODEL_DIR"
std::string spelling(const CLI::Option& option) {
  std::string text;
  if (option.get_positional() && option.get_lnames().empty()) {
    text = option.get_single_name();
  } else {
    for (const std::string& name : option.get_snames()) text += (text.empty() ? "-" : ", -") + name;
    for (const std::string& name : option.get_lnames()) text += (text.empty() ? "--" : ", --") + name;
    if (option.get_items_expected_max() != 0) text += " " + option.get_type_name();
  }
  if (option.get_expected_max() > 1) text += "...";
  return text;
}

std::string line(const std::string& group, const std::string& name, size_t column, const std::string& description) {
  return padded(group, kMargin) + padded(name, column - 1) + " " + description + "\n";
}

void append_verbs(const CLI::App& app, std::string& out) {
  std::string shown;
  for (const CLI::App* verb : app.get_subcommands([](const CLI::App*) { return true; })) {
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
    HelpLine next{spelling(*option), option->get_description(), option->get_items_expected_max() == 0};
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

void append_options(const CLI::App& app, std::string& out) {
  std::vector<std::string> groups;
  for (const CLI::Option* option : app.get_options()) {
    const std::string& group = option->get_group();
    if (!group.empty() && std::find(groups.begin(), groups.end(), group) == groups.end()) groups.push_back(group);
  }
  if (app.get_parent() != nullptr) std::erase(groups, kHelpGroup);  // every verb has it; the text of the program says so
  for (const std::string& group : groups) {
    std::string margin = group;
    for (const HelpLine& help : option_lines(app.get_options([&](const CLI::Option* o) { return o->get_group() == group; }))) {
      out += line(margin, help.name, kOptionColumn, help.description);
      margin.clear();
    }
  }
}

std::string usage(const CLI::App& app) {
  std::string text = "Usage: quern";
  if (app.get_parent() == nullptr) return text + " VERB ...\n";
  text += " " + app.get_name();
  for (const CLI::Option* option : app.get_options([](const CLI::Option* o) { return o->get_positional(); })) {
    const std::string name = spelling(*option);
    text += option->get_required() ? " " + name : " [" + name + "]";
  }
  return text + " [options]\n";
}

}  // namespace

std::string help_text(const CLI::App& app) {
  std::string out = usage(app) + app.get_description() + ".\n";
  append_verbs(app, out);
  append_options(app, out);
  if (!app.get_footer().empty()) out += "Example: " + app.get_footer() + "\n";
  return out;
}

}  // namespace quern::cli
