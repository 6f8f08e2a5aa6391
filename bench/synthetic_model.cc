#include "bench/synthetic_model.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <random>

#include "tests/formats/random_model.h"

namespace quern::bench {
namespace {

constexpr int64_t kVocab = 32000;
constexpr int64_t kExperts = 64;
constexpr int64_t kExpertsUsed = 8;
constexpr int64_t kHeadWidth = 64;

}  // namespace

int64_t SyntheticModel::parameters() const noexcept {
  const int64_t attention = (moe ? 3 : 4) * hidden * hidden;
  const int64_t networks = (moe ? kExperts : 1) * 3 * hidden * width + (moe ? kExperts * hidden : 0);
  return layers * (attention + networks) + 2 * kVocab * hidden;
}

SyntheticModel dense_model(int64_t parameters) {
  SyntheticModel best;
  for (int64_t hidden = 256; hidden <= 16384; hidden += 256) {
    const SyntheticModel model{false, std::max<int64_t>(1, hidden * 24 / 1024), hidden, hidden / 4 * 11, hidden / kHeadWidth};
    if (best.hidden == 0 || std::abs(model.parameters() - parameters) < std::abs(best.parameters() - parameters)) best = model;
  }
  return best;
}

SyntheticModel moe_model(int64_t parameters) {
  SyntheticModel model{true, 1, 1024, 256, 1024 / kHeadWidth};
  const int64_t outside = 2 * kVocab * model.hidden, layer = model.parameters() - outside;
  model.layers = std::max<int64_t>(1, (parameters - outside + layer / 2) / layer);
  return model;
}

void write_checkpoint_of(const SyntheticModel& model, const std::filesystem::path& folder) {
  nlohmann::ordered_json config = {{"quern_test", {{"tokenizer", "mini-llama3"}}},
                                   {"architectures", {model.moe ? "Qwen3MoeForCausalLM" : "LlamaForCausalLM"}},
                                   {"model_type", model.moe ? "qwen3_moe" : "llama"},
                                   {"torch_dtype", "bfloat16"},
                                   {"hidden_act", "silu"},
                                   {"rms_norm_eps", 1e-5},
                                   {"rope_theta", 500000.0},
                                   {"max_position_embeddings", 4096},
                                   {"bos_token_id", 507},
                                   {"eos_token_id", 508},
                                   {"tie_word_embeddings", false},
                                   {"vocab_size", kVocab},
                                   {"hidden_size", model.hidden},
                                   {"intermediate_size", model.width},
                                   {"num_hidden_layers", model.layers},
                                   {"num_attention_heads", model.heads},
                                   {"num_key_value_heads", model.moe ? model.heads / 2 : model.heads},
                                   {"head_dim", kHeadWidth}};
  if (model.moe) {
    config["num_experts"] = kExperts;
    config["num_experts_per_tok"] = kExpertsUsed;
    config["moe_intermediate_size"] = model.width;
    config["norm_topk_prob"] = true;
    config["decoder_sparse_step"] = 1;
    config["mlp_only_layers"] = nlohmann::json::array();
  }
  std::filesystem::create_directories(folder);
  const std::filesystem::path config_file = folder.string() + ".json";
  test::write_bytes(config_file, test::to_bytes(config.dump(1)));
  test::write_random_model(config_file, std::filesystem::path(QUERN_TEST_DATA) / "models", folder);
  std::filesystem::remove(config_file);
}

std::string synthetic_text(int64_t n_tokens) {
  std::mt19937_64 random(1);
  std::string text;
  while (static_cast<int64_t>(text.size()) < 8 * n_tokens) {  // tokens of that tokenizer are 1 to 8 bytes long
    for (uint64_t letters = 2 + random() % 7; letters > 0; --letters) text += static_cast<char>('a' + random() % 26);
    text += random() % 12 == 0 ? ".\n" : " ";
  }
  return text;
}

}  // namespace quern::bench
