#include "formats/arch/stored_names.h"

#include <algorithm>
#include <array>
#include <set>
#include <utility>

#include "formats/base/error.h"

// Wrappers are not looked up in a list: whatever stands before the name of the embedding is one, if the last norm has it as well. So
// stacked wrappers and those that nobody has thought of yet are understood too, while a checkpoint that holds two models, of which each
// could be meant, is left as it is. Only what is put between components has to be known by name.

namespace quern {
namespace {

constexpr std::array<std::string_view, 3> kBetween = {"_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module."};

std::string without_wrappers(std::string_view name) {
  std::string text(name);
  for (const std::string_view part : kBetween) {
    for (size_t at = text.find(part); at != text.npos; at = text.find(part, at)) {
      if (at == 0 || text[at - 1] == '.') {
        text.erase(at, part.size());
      } else {
        at += part.size();
      }
    }
  }
  return text;
}

std::string stored_name_of(const ArchRules& rules, std::string_view gguf_name) {
  const auto rule = std::ranges::find(rules.rules, gguf_name, &TensorRule::name);
  return rule == rules.rules.end() ? std::string() : rule->stored;
}

std::string_view first_component(std::string_view name) { return name.substr(0, name.find('.')); }

// What stands before the last two components, with its dot: "model." of "model.embed_tokens.weight".
std::string root_of(std::string_view name) {
  const size_t last = name.rfind('.');
  if (last == name.npos || last == 0) return {};
  const size_t before = name.rfind('.', last - 1);
  return before == name.npos ? std::string() : std::string(name.substr(0, before + 1));
}

std::vector<std::string> roots_of(const ArchRules& rules, const std::string& root) {
  std::set<std::string, std::less<>> roots;
  for (const TensorRule& rule : rules.rules) {
    if (rule.stored.starts_with(root)) roots.emplace(first_component(std::string_view(rule.stored).substr(root.size())));
  }
  return {roots.begin(), roots.end()};
}

using Names = std::set<std::string, std::less<>>;

// Everything that stands before both names in place of `root`.
std::vector<std::string> find_prefixes(const Names& stored, const std::string& embedding, const std::string& norm,
                                       const std::string& root) {
  const std::string embedding_leaf = embedding.substr(root.size()), norm_leaf = norm.substr(root.size());
  std::vector<std::string> prefixes;
  for (const std::string& name : stored) {
    if (!name.ends_with(embedding_leaf)) continue;
    std::string prefix = name.substr(0, name.size() - embedding_leaf.size());
    const bool whole = prefix.empty() || prefix.back() == '.';
    if (whole && stored.contains(prefix + norm_leaf)) prefixes.push_back(std::move(prefix));
  }
  return prefixes;
}

bool keeps_apart(const NameChange& change, std::span<const std::string> stored) {
  Names names;
  return std::ranges::all_of(stored, [&](const std::string& name) { return names.insert(change(name)).second; });
}

}  // namespace

std::string NameChange::operator()(std::string_view stored) const {
  std::string name = unwrap ? without_wrappers(stored) : std::string(stored);
  if (from == to || !name.starts_with(from)) return name;
  if (from.empty() && std::ranges::find(roots, first_component(name)) == roots.end()) return name;
  return to + name.substr(from.size());
}

std::string NameChange::describe() const {
  std::string text;
  if (unwrap) text = "what torch.compile or FSDP put into stored names is taken out ('_orig_mod.' and the like)";
  if (from == to) return text;
  if (!text.empty()) text += "; ";
  if (from.empty()) return text + "stored names lack '" + to + "', which is put before them";
  if (to.empty()) return text + "stored names begin with '" + printable(from) + "', which is taken off";
  return text + "stored names begin with '" + printable(from) + "', which is read as '" + to + "'";
}

std::optional<NameChange> find_name_change(std::span<const std::string> stored, const ArchRules& expected) {
  const std::string embedding = stored_name_of(expected, "token_embd.weight"), norm = stored_name_of(expected, "output_norm.weight");
  const std::string root = root_of(embedding);
  if (embedding.empty() || !norm.starts_with(root)) return std::nullopt;
  NameChange change;
  Names names;
  for (const std::string& name : stored) {
    std::string unwrapped = without_wrappers(name);
    change.unwrap = change.unwrap || unwrapped != name;
    names.insert(std::move(unwrapped));
  }
  if (!names.contains(embedding)) {
    const std::vector<std::string> prefixes = find_prefixes(names, embedding, norm, root);
    if (prefixes.size() != 1) return std::nullopt;
    const std::string& prefix = prefixes.front();
    const bool around = prefix.ends_with(root) && (prefix.size() == root.size() || prefix[prefix.size() - root.size() - 1] == '.');
    change.from = around ? prefix.substr(0, prefix.size() - root.size()) : prefix;
    if (!around) change.to = root;
    change.roots = roots_of(expected, root);
  }
  if ((!change.unwrap && change.from == change.to) || !keeps_apart(change, stored)) return std::nullopt;
  return change;
}

}  // namespace quern
