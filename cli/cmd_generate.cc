#include <iostream>
#include <memory>

#include "cli/help.h"
#include "recipes/recipe.h"

// The verb is for those who build and install quern, and stands in no list of verbs.

namespace quern::cli {
namespace {

std::string roff(std::string_view text) {
  std::string out;
  for (const char c : text) out += c == '\\' ? std::string("\\e") : c == '-' ? std::string("\\-") : std::string(1, c);
  return out;
}

std::string man_verb(const CLI::App& verb) {
  std::string out = ".SS " + roff(usage(verb)) + "\n" + roff(verb.get_description()) + ".\n";
  for (const CLI::Option* option : verb.get_options()) {
    if (option->get_group() == kHelpGroup) continue;
    out += ".TP\n.B " + roff(spelling(*option)) + "\n" + roff(option->get_description()) + "\n";
  }
  return out + ".PP\nExample:\n.B " + roff(verb.get_footer()) + "\n";
}

std::string man_types() {
  std::string out;
  for (const Mix& mix : all_mixes()) out += (out.empty() ? "" : ", ") + std::string(mix.name);
  return roff(out) + ".\n";
}

std::string generated(const CLI::App& app, const std::string& what) {
  if (what == "man") return man_text(app);
  return what == "types" ? man_types() : completion_text(app, what);
}

}  // namespace

std::string man_text(const CLI::App& app) {
  std::string out;
  for (const CLI::App* verb : shown_verbs(app)) out += man_verb(*verb);
  return out;
}

void add_generate(CLI::App& app, Context& context) {
  const auto what = std::make_shared<std::string>();
  CLI::App* verb = app.add_subcommand("generate", "Print a file for completions, or a part of the manual page");
  verb->group("")->footer("quern generate bash");
  verb->add_option("WHAT", *what, "bash, zsh, fish; man, types")->required()->group("Input");
  verb->callback([what, &app, &context] {
    context.command = [what, &app] {
      std::cout << generated(app, *what);
      return 0;
    };
  });
}

}  // namespace quern::cli
