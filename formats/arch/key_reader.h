#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "formats/gguf/metadata.h"
#include "formats/model/hparams.h"

namespace quern {

// Throws kFormat naming the key that is missing or out of range, kUnsupported for an architecture or a setting that the runtime cannot
// run: every value of the result is one that the runtime may use without looking.
Hparams read_hparams(const Metadata& metadata);

// The same as far as the keys go, for mixes and estimates of files that the runtime need not be able to run: what is missing counts as 0,
// and an architecture without a descriptor as grouped attention, latent where it has kv_lora_rank. Throws kFormat for values of another
// kind and for counts that no model has.
Hparams outline_hparams(const Metadata& metadata);

namespace arch {

// Reads `{arch}.SUFFIX` keys for a family's read_hparams: the prefix is added and ranges are checked.
class KeyReader {
 public:
  enum class Mode {
    kStrict,   // for read_hparams
    kOutline,  // for outline_hparams: what is missing is 0, of a list where one number is expected the first one counts, nothing is refused
  };
  KeyReader(const Metadata& metadata, std::string arch, Mode mode) : metadata_(metadata), arch_(std::move(arch)), mode_(mode) {}

  const std::string& arch() const noexcept { return arch_; }
  bool strict() const noexcept { return mode_ == Mode::kStrict; }

  bool has(std::string_view suffix) const { return metadata_.find(key(suffix)) != nullptr; }
  int64_t count(std::string_view suffix) const;                     // at least 1
  int64_t count_or(std::string_view suffix, int64_t absent) const;  // at least 0
  double number(std::string_view suffix) const;                     // finite
  double number_or(std::string_view suffix, double absent) const;
  bool flag_or(std::string_view suffix, bool absent) const { return metadata_.find_bool(key(suffix)).value_or(absent); }
  std::string text_or(std::string_view suffix, const char* absent) const { return metadata_.find_string(key(suffix)).value_or(absent); }
  // One value per layer: an array with at least n entries, or one number for all; empty when the key is absent.
  std::vector<double> per_layer(std::string_view suffix, int64_t n) const;
  // The same for counts; where the key is absent, `absent` for every layer.
  std::vector<int64_t> counts_per_layer(std::string_view suffix, int64_t n, int64_t absent) const;

  // What values together must fulfil: kFormat if they contradict each other, kUnsupported if the runtime has nothing for them.
  void check(bool holds, const std::string& problem) const;
  void support(bool holds, const std::string& problem) const;

 private:
  std::string key(std::string_view suffix) const { return std::string(arch_).append(".").append(suffix); }
  int64_t in_range(std::string_view suffix, int64_t value, int64_t min) const;
  double finite(std::string_view suffix, double value) const;
  std::optional<int64_t> find_int(std::string_view suffix) const;

  const Metadata& metadata_;
  std::string arch_;
  Mode mode_;
};

// Parts that families share. Each reads its keys and sets the members of `h` named in the comment.

// Scaling keys. `magnitude` gets the rule of plain attention; MLA and deepseek4 overwrite it.
double yarn_gain(double factor, double multiplier);  // by which cos and sin, or scores, of a stretched context are multiplied
RopeParams read_rope_params(const KeyReader& keys, RopePairing pairing, int64_t n_dims);
// routing, less its gating.
void read_routing(const KeyReader& keys, Hparams& h);
Gating read_gating(const KeyReader& keys, Gating absent);
// key_dim, value_dim; checks that the key heads divide the query heads.
void read_grouped_dims(const KeyReader& keys, Hparams& h);
// Everything of models with one kind of layer: grouped attention with one rotation, dense networks or softmax-routed experts throughout.
void read_uniform_layers(const KeyReader& keys, Hparams& h, RopePairing pairing);

}  // namespace arch
}  // namespace quern
