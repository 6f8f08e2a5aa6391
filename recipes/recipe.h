#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/gguf/metadata.h"
#include "formats/model/model_source.h"
#include "formats/types/dtype.h"
#include "recipes/mix.h"

namespace quern {

// A recipe says which type each tensor gets: ordered rules, of which the first that matches a tensor decides. It is a value that is
// read from and written to JSON (docs/formats/recipe.md), embedded in what is built by it, and compared by its hash. The
// architecture's keep-list stands above every rule; a named mix is the recipe of one rule, "mix:NAME".

// Some layers: numbers, both ends included, of which negative ones count from the end (-1 is the last layer); or parts of the depth in
// thousandths: of n layers those i with first * n <= 1000 * i < last * n.
struct LayerRange {
  int64_t first = 0;
  int64_t last = 0;
  bool fraction = false;

  bool contains(int64_t layer, int64_t n_layers) const noexcept;
  bool operator==(const LayerRange&) const = default;
};

// What a rule assigns.
struct RecipeType {
  enum class Kind {
    kType,      // `type`
    kSource,    // the type nearest to what is stored: MXFP4 for FP4, BF16 for FP8, BF16, F16, F32
    kLossless,  // the smallest type that holds every stored value
    kMix        // what the mix named `mix` gives this tensor
  };
  Kind kind = Kind::kType;
  DType type = DType::F32;
  const Mix* mix = nullptr;

  bool operator==(const RecipeType&) const = default;
};

// "Q4_K", "source", "lossless", "mix:Q4_K_M".
std::string to_string(const RecipeType& type);
// Throws kUsage with the nearest known name.
RecipeType recipe_type_from_string(std::string_view text);

// Models with and without routed experts.
enum class ModelKind { kAny, kDense, kMoe };

// The conditions that are not empty must all hold for a tensor.
struct RecipeRule {
  std::string name;                // regular expression (PCRE2), searched in the tensor name
  std::vector<LayerRange> layers;  // any of them; tensors outside blocks are in none
  std::vector<Role> roles;         // any of them
  std::vector<std::string> parts;  // any of them; see tensor_part()
  std::vector<DType> sources;      // any of them: LogicalTensor::source_type
  ModelKind model = ModelKind::kAny;
  RecipeType type;
  std::vector<DType> fallbacks;   // tried in order when the blocks of `type` do not divide the rows; then as llama-quantize falls back
  bool needs_importance = false;  // refuse to go on without an importance matrix
  bool override_keep = false;     // also for matrices that the keep-list leaves in their 16-bit type (Keep::kSource)
  std::string note;

  bool operator==(const RecipeRule&) const = default;
};

struct Recipe {
  std::string name;    // a word of letters, digits, '.', '_' and '-': part of file names
  std::string notes;   // for people
  std::string effort;  // "fast", "default", "best": depth of the encoders' search; empty: not said
  std::vector<RecipeRule> rules;

  bool operator==(const Recipe&) const = default;
};

// Reads hostile text: at most 1 MiB, 4096 rules, patterns of 512 bytes. Throws kFormat naming the rule ("rule 3: ...").
Recipe recipe_from_json(std::string_view text);
// For people, one rule per line. Reading it gives the same recipe.
std::string recipe_to_json(const Recipe& recipe);
// Without white space, keys in a fixed order: the text that is embedded in files.
std::string canonical_json(const Recipe& recipe);
// SHA-256 of the canonical text.
std::string recipe_id(const Recipe& recipe);

// The recipe of one rule, "mix:NAME", named as the mix.
Recipe mix_recipe(const Mix& mix);
// The mix that a recipe is, or nullptr when it is more than a mix_recipe().
const Mix* as_mix(const Recipe& recipe) noexcept;

// The recipes that are part of the program (recipes/*.json).
std::span<const Recipe> shipped_recipes();
// A shipped recipe or a mix by name (any case), a recipe file, or a GGUF file that has one embedded. Throws kUsage with the nearest name
// for unknown ones; errors of a file name it.
Recipe load_recipe(const std::string& file_or_name);
// By the keys of a GGUF file. Throws kUsage when it does not say, kFormat when the recipe does not have the hash that it should.
Recipe embedded_recipe(const Metadata& metadata);

// The word that tells tensors of one role apart: the name without "blk.N.", "attn_", "ffn_", "indexer.", ".weight", "_exps", "_shexp".
// "gate", "up", "down", "q_a", "kv_a_mqa", "k_b", "output".
std::string_view tensor_part(std::string_view name) noexcept;
// "routed-expert"; the other names are in docs/formats/recipe.md.
std::string_view role_name(Role role) noexcept;
std::optional<Role> find_role(std::string_view name) noexcept;

// Of tensor number i, ModelSource::exactness: asked for tensors whose rule says "lossless".
using AskExactness = std::function<Exactness(size_t)>;

// One type per tensor, in the order of `tensors`, which are all tensors of the model. Without `exactness` a lossless tensor gets the
// type nearest to what is stored, which holds every value in all releases that are known. Throws kUsage when no rule decides a
// tensor or a rule requires the importance matrix that is not there, kUnsupported when "lossless" is impossible.
std::vector<TypeChoice> choose_types(const Recipe& recipe, const Metadata& metadata, std::span<const LogicalTensor> tensors,
                                     bool have_imatrix, const AskExactness& exactness = {});

// The shortest recipe we know how to write that gives exactly these types to these tensors: rules by role and part, with lists of layers
// where one type is not enough, by name where that is not enough either.
Recipe recipe_of_types(std::string name, const Metadata& metadata, std::span<const LogicalTensor> tensors, std::span<const DType> types);

}  // namespace quern
