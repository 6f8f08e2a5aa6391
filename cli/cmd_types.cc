#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/cli.h"
#include "recipes/machines.h"
#include "recipes/recipe.h"

namespace quern::cli {
namespace {

using nlohmann::ordered_json;

// Up to the first full stop or colon.
std::string headline(const std::string& notes) { return notes.substr(0, std::min(notes.find(". "), notes.find(':'))); }

std::string mix_text(const Mix& mix) {
  if (is_lossless(mix)) return "every weight exactly as it is stored, and proved";
  return number("%.4g", bits_per_weight(mix.base)) + " bits per weight: " + std::string(name_of(mix.base));
}

std::string machine_text(const Machine& machine) {
  return machine.name + ", " + number("%.0f", machine.bandwidth / 1e9) +
         (machine.gpu_bytes > 0 ? " and " + number("%.0f", machine.gpu_bandwidth / 1e9) : "") + " GB/s";
}

void print_line(std::string_view name, const std::string& text) {
  constexpr size_t kColumn = 20;
  std::cout << "  " << name << std::string(kColumn - std::min(kColumn - 1, name.size()), ' ') << text << '\n';
}

void print_text() {
  std::cout << "Types, for --type: most tensors get the type that is named here\n";
  for (const Mix& mix : all_mixes()) print_line(mix.name, mix_text(mix));
  std::cout << "\nRecipes, for --recipe\n";
  for (const Recipe& recipe : shipped_recipes()) {
    if (find_mix(recipe.name) == nullptr) print_line(recipe.name, headline(recipe.notes));
  }
  std::cout << "\nMachines, for --machine of plan\n";
  for (const Machine& machine : all_machines()) print_line(machine.id, machine_text(machine));
}

std::string to_json() {
  ordered_json root = {{"schema", "quern.types/1"},
                       {"types", ordered_json::array()},
                       {"recipes", ordered_json::array()},
                       {"machines", ordered_json::array()}};
  for (const Mix& mix : all_mixes()) {
    root["types"].push_back({{"name", mix.name}, {"base", name_of(mix.base)}, {"file_type", mix.file_type}});
  }
  for (const Recipe& recipe : shipped_recipes()) root["recipes"].push_back({{"name", recipe.name}, {"notes", recipe.notes}});
  for (const Machine& machine : all_machines()) {
    root["machines"].push_back({{"id", machine.id},
                                {"name", machine.name},
                                {"memory_bytes", machine.memory_bytes},
                                {"bandwidth", machine.bandwidth},
                                {"gpu_bytes", machine.gpu_bytes},
                                {"gpu_bandwidth", machine.gpu_bandwidth}});
  }
  return root.dump(1) + "\n";
}

}  // namespace

void add_types(CLI::App& app, Context& context) {
  const auto json = std::make_shared<bool>(false);
  CLI::App* verb = app.add_subcommand("types", "List the types, recipes and machines that are known");
  verb->group("Choose")->footer("quern types");
  verb->add_flag("--json", *json, "as JSON on stdout")->group("Run");
  verb->callback([json, &context] {
    context.command = [json] {
      if (*json) {
        std::cout << to_json();
      } else {
        print_text();
      }
      return 0;
    };
  });
}

}  // namespace quern::cli
