#include "formats/arch/key_reader.h"

#include <algorithm>

#include "tests/formats/arch/arch_test_util.h"

// A family writes its keys and reads them back in one file: what config.json says must come out of the keys as it went in.

namespace quern {
namespace {

namespace fs = std::filesystem;

std::vector<fs::path> configs() {
  std::vector<fs::path> paths;
  for (const char* folder : {"configs", "random-models"}) {
    for (const auto& entry : fs::directory_iterator(fs::path(QUERN_TEST_DATA) / folder)) {
      if (entry.path().extension() == ".json") paths.push_back(entry.path());
    }
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

Metadata with_arch(const ModelConfig& config) {
  Metadata metadata;
  metadata.set("general.architecture", std::string(find_arch(config).gguf_arch));
  find_arch(config).set_metadata(config, false, metadata);
  return metadata;
}

void expect_sizes(const ModelConfig& config, const Hparams& h) {
  EXPECT_EQ(h.n_layers, config.get_count("num_hidden_layers"));
  EXPECT_EQ(static_cast<int64_t>(h.layers.size()), h.n_layers + h.n_mtp_layers);
  EXPECT_EQ(h.hidden, config.get_count("hidden_size"));
  EXPECT_EQ(h.n_heads, config.get_count("num_attention_heads"));
  EXPECT_EQ(h.context_length, config.get_count("max_position_embeddings"));
  EXPECT_EQ(h.routing.n_experts, config.find_int("num_experts", 1, 1 << 20).value_or(0));
  if (h.routing.n_experts > 0) {
    EXPECT_EQ(h.routing.n_used, config.get_count("num_experts_per_tok"));
    EXPECT_EQ(h.expert_width, config.get_count(config.has("moe_intermediate_size") ? "moe_intermediate_size" : "intermediate_size"));
  }
  EXPECT_FLOAT_EQ(static_cast<float>(h.norm_eps), static_cast<float>(config.get_float("rms_norm_eps", h.norm_eps)));
  if (const auto theta = config.find_float("rope_theta")) {
    EXPECT_FLOAT_EQ(static_cast<float>(h.ropes[0].freq_base), static_cast<float>(*theta));
  }
}

void expect_layer(const ModelConfig& config, const Hparams& h, int64_t i) {
  const LayerParams& layer = h.layers[static_cast<size_t>(i)];
  const std::string type = config.find_string("model_type").value_or("");
  if (type == "deepseek_v4") {
    EXPECT_EQ(layer.attention, AttentionKind::kCompressed);
    EXPECT_EQ(layer.compress_ratio, config.find_int_array("compress_ratios", 0, INT32_MAX)->at(static_cast<size_t>(i)));
    EXPECT_EQ(layer.window, config.get_count("sliding_window"));
    EXPECT_EQ(layer.hash_routing, i < config.get_int("num_hash_layers", 0, h.n_layers));
  } else if (config.has("kv_lora_rank")) {
    EXPECT_EQ(layer.attention, AttentionKind::kLatent);
    EXPECT_EQ(layer.moe, h.routing.n_experts > 0 && i >= config.find_int("first_k_dense_replace", 0, INT32_MAX).value_or(0));
  } else {
    EXPECT_EQ(layer.attention, AttentionKind::kGrouped);
    EXPECT_EQ(layer.n_kv_heads, config.get_count("num_key_value_heads", h.n_heads));
    EXPECT_EQ(layer.moe, h.routing.n_experts > 0 && i >= config.find_int("first_k_dense_replace", 0, INT32_MAX).value_or(0));
    EXPECT_EQ(layer.window, type == "gpt_oss" && i % 2 == 0 ? config.get_count("sliding_window") : 0);
  }
}

void expect_widths(const ModelConfig& config, const Hparams& h) {
  if (config.has("kv_lora_rank")) {
    EXPECT_EQ(h.kv_rank, config.get_count("kv_lora_rank"));
    EXPECT_EQ(h.q_rank, config.get_count("q_lora_rank", 0));
    EXPECT_EQ(h.ropes[0].n_dims, config.get_count("qk_rope_head_dim"));
    EXPECT_EQ(h.key_dim, config.get_count("qk_nope_head_dim") + h.ropes[0].n_dims);
    EXPECT_EQ(h.value_dim, config.get_count("v_head_dim"));
    EXPECT_TRUE(h.split_kv_b);
  } else {
    const auto head_dim = config.find_int("head_dim", 1, 65536);
    EXPECT_EQ(h.key_dim, head_dim.value_or(h.key_dim));
    EXPECT_EQ(h.value_dim, h.key_dim);
  }
}

TEST(Hparams, ReturnWhatTheConfigSaysFromTheKeysOfEveryFamily) {
  std::set<std::string> families;
  for (const fs::path& path : configs()) {
    SCOPED_TRACE(path.filename().string());
    const ModelConfig config = ModelConfig::parse(slurp(path));
    const Metadata metadata = with_arch(config);
    const Hparams h = read_hparams(metadata);
    families.insert(h.arch);
    expect_sizes(config, h);
    expect_widths(config, h);
    for (int64_t i = 0; i < h.n_layers; ++i) expect_layer(config, h, i);
  }
  EXPECT_EQ(families.size(), all_archs().size()) << "a family without a configuration in tests/data";
}

TEST(Hparams, AnOutlineOfACompleteFileIsTheSame) {
  for (const fs::path& path : configs()) {
    SCOPED_TRACE(path.filename().string());
    const Metadata metadata = with_arch(ModelConfig::parse(slurp(path)));
    const Hparams strict = read_hparams(metadata), outline = outline_hparams(metadata);
    EXPECT_EQ(outline.layers.size(), strict.layers.size());
    EXPECT_EQ(outline.key_dim, strict.key_dim);
    EXPECT_EQ(outline.routing.n_used, strict.routing.n_used);
    EXPECT_EQ(outline.layers.back().attention_scale, strict.layers.back().attention_scale);
  }
}

TEST(Hparams, AnOutlineTakesWhatThereIsOfAnArchitectureWithoutADescriptor) {
  Metadata metadata;
  EXPECT_EQ(outline_hparams(metadata).n_layers, 0);
  metadata.set("general.architecture", std::string("gemma3n"));
  metadata.set("gemma3n.block_count", uint32_t{3});
  metadata.set("gemma3n.embedding_length", uint32_t{64});
  metadata.set("gemma3n.feed_forward_length", std::vector<int32_t>{96, 128, 96});
  metadata.set("gemma3n.attention.head_count", uint32_t{8});
  metadata.set("gemma3n.attention.head_count_kv", std::vector<int32_t>{2, 4});
  const Hparams h = outline_hparams(metadata);
  EXPECT_EQ(h.dense_width, 96);
  EXPECT_EQ(h.key_dim, 8);
  std::vector<int64_t> heads;
  for (const LayerParams& layer : h.layers) heads.push_back(layer.n_kv_heads);
  EXPECT_EQ(heads, (std::vector<int64_t>{2, 4, 8}));
  EXPECT_ERROR(read_hparams(metadata), ErrorKind::kFormat, "attention.layer_norm_rms_epsilon");
  metadata.set("gemma3n.attention.layer_norm_rms_epsilon", 1e-6f);
  metadata.set("gemma3n.feed_forward_length", uint32_t{96});
  metadata.set("gemma3n.attention.head_count_kv", uint32_t{2});
  EXPECT_ERROR(read_hparams(metadata), ErrorKind::kUnsupported, "architecture 'gemma3n' is not supported (llama, qwen2, qwen3, ");
}

}  // namespace
}  // namespace quern
