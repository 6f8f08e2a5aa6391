#pragma once

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "runtime/pass/evaluator.h"
#include "runtime/pass/output_head.h"
#include "tests/runtime/memory_source.h"

namespace quern {

// The golden tiny DeepSeek-V4 of the specification: 4 layers (ratios 0, 4, 128, 4) and an MTP block, weights from a hash of name and
// index. Expected values were computed by two independent implementations, one of them the official graph.

inline std::vector<double> golden_uniform(const std::string& name, int64_t n) {
  uint32_t hash = 0x811C9DC5u;
  for (const char c : name) hash = (hash ^ static_cast<uint8_t>(c)) * 0x01000193u;
  std::vector<double> values;
  for (int64_t i = 0; i < n; ++i) {
    uint32_t u = static_cast<uint32_t>(i) * 2654435761u + hash;
    u ^= u >> 15;
    u *= 2246822519u;
    u ^= u >> 13;
    u *= 3266489917u;
    u ^= u >> 16;
    values.push_back(static_cast<double>(u) / 2147483648.0 - 1.0);
  }
  return values;
}

class GoldenV4 {
 public:
  static constexpr int64_t kV = 64, kD = 16, kL = 4, kH = 4, kHeadDim = 16, kQ = 12, kG = 2, kRank = 6, kI = 10, kE = 8, kK = 2;
  static constexpr int64_t kIndexHeads = 16, kIndexDim = 16, kHc = 4, kTokens = 141;

  MemorySource main;
  MemorySource mtp;
  int n_tensors = 0;
  double sum = 0.0;

  GoldenV4() {
    set_metadata(main.metadata(), false);
    set_metadata(mtp.metadata(), true);
    add(main, "token_embd.weight", {kV, kD}, make("embed.weight", kV * kD, 1.0, 0.0));
    mtp.add("token_embd.weight", {kV, kD}, main.values("token_embd.weight"));
    norm(main, "output_norm.weight", "norm.weight", kD);
    add(main, "output.weight", {kV, kD}, make("head.weight", kV * kD, 3.0 / 4.0, 0.0));
    mtp.add("output.weight", {kV, kD}, main.values("output.weight"));
    head_mix(main, "");
    const int64_t ratios[] = {0, 4, 128, 4};
    for (int64_t layer = 0; layer < kL; ++layer) block(main, "layers." + std::to_string(layer), layer, ratios[layer], layer < 2);
    block(mtp, "mtp.0", kL, 0, false);
    const std::string nextn = "blk.4.nextn.";
    norm(mtp, nextn + "enorm.weight", "mtp.0.enorm.weight", kD);
    norm(mtp, nextn + "hnorm.weight", "mtp.0.hnorm.weight", kD);
    norm(mtp, nextn + "shared_head_norm.weight", "mtp.0.norm.weight", kD);
    head_mix(mtp, "mtp.0.");
    const std::vector<float> e = make("mtp.0.e_proj.weight", kD * kD, 1.5 / 4.0, 0.0),
                             h = make("mtp.0.h_proj.weight", kD * kD, 1.5 / 4.0, 0.0);
    std::vector<float> pair;
    for (int64_t row = 0; row < kD; ++row) {
      pair.insert(pair.end(), e.begin() + row * kD, e.begin() + (row + 1) * kD);
      pair.insert(pair.end(), h.begin() + row * kD, h.begin() + (row + 1) * kD);
    }
    mtp.add(nextn + "eh_proj.weight", {kD, 2 * kD}, pair);
  }

  static std::vector<int32_t> tokens() {
    std::vector<int32_t> ids;
    for (const double v : golden_uniform("tokens4", kTokens)) ids.push_back(static_cast<int32_t>(std::floor((v + 1.0) / 2.0 * 64.0)));
    return ids;
  }

 private:
  std::vector<float> make(const std::string& name, int64_t n, double scale, double offset) {
    std::vector<float> values;
    for (const double v : golden_uniform(name, n)) values.push_back(static_cast<float>(offset + scale * v));
    count(values);
    return values;
  }
  void count(const std::vector<float>& values) {
    ++n_tensors;
    for (const float v : values) sum += static_cast<double>(v);
  }
  void add(MemorySource& source, const std::string& name, Shape shape, std::vector<float> values) {
    source.add(name, shape, std::move(values));
  }
  void linear(MemorySource& source, const std::string& name, const std::string& stored, int64_t out, int64_t in) {
    add(source, name, {out, in}, make(stored, out * in, 1.5 / std::sqrt(static_cast<double>(in)), 0.0));
  }
  void norm(MemorySource& source, const std::string& name, const std::string& stored, int64_t n) {
    add(source, name, {n}, make(stored, n, 0.1, 1.0));
  }
  void head_mix(MemorySource& source, const std::string& prefix) {
    add(source, "output_hc_fn.weight", {kHc, kHc * kD}, make(prefix + "hc_head_fn", kHc * kHc * kD, 2.0 / 8.0, 0.0));
    add(source, "output_hc_base.weight", {kHc}, make(prefix + "hc_head_base", kHc, 0.5, 0.0));
    add(source, "output_hc_scale.weight", {1}, make(prefix + "hc_head_scale", 1, 0.1, 1.0));
  }
  void compressor(MemorySource& source, const std::string& name, const std::string& stored, int64_t ratio, int64_t width) {
    const int64_t columns = ratio == 4 ? 2 * width : width;
    add(source, name + "_ape.weight", {ratio, columns}, make(stored + ".ape", ratio * columns, 0.5, 0.0));
    linear(source, name + "_kv.weight", stored + ".wkv.weight", columns, kD);
    linear(source, name + "_gate.weight", stored + ".wgate.weight", columns, kD);
    norm(source, name + "_norm.weight", stored + ".norm.weight", width);
  }
  void experts(MemorySource& source, const std::string& name, const std::string& stored, const char* matrix, int64_t out, int64_t in) {
    std::vector<float> stack;
    for (int64_t e = 0; e < kE; ++e) {
      const auto one = make(stored + ".ffn.experts." + std::to_string(e) + "." + matrix + ".weight", out * in,
                            1.5 / std::sqrt(static_cast<double>(in)), 0.0);
      stack.insert(stack.end(), one.begin(), one.end());
    }
    add(source, name, {kE, out, in}, stack);
  }

  void block(MemorySource& source, const std::string& stored, int64_t layer, int64_t ratio, bool hash) {
    const std::string blk = "blk." + std::to_string(layer) + ".";
    norm(source, blk + "attn_norm.weight", stored + ".attn_norm.weight", kD);
    norm(source, blk + "ffn_norm.weight", stored + ".ffn_norm.weight", kD);
    for (const char* part : {"attn", "ffn"}) {
      const std::string hc = std::string("hc_") + part;
      add(source, blk + hc + "_fn.weight", {24, kHc * kD}, make(stored + "." + hc + "_fn", 24 * kHc * kD, 2.0 / 8.0, 0.0));
      add(source, blk + hc + "_base.weight", {24}, make(stored + "." + hc + "_base", 24, 0.5, 0.0));
      add(source, blk + hc + "_scale.weight", {3}, make(stored + "." + hc + "_scale", 3, 0.1, 1.0));
    }
    add(source, blk + "attn_sinks.weight", {kH}, make(stored + ".attn.attn_sink", kH, 1.0, 0.0));
    linear(source, blk + "attn_q_a.weight", stored + ".attn.wq_a.weight", kQ, kD);
    norm(source, blk + "attn_q_a_norm.weight", stored + ".attn.q_norm.weight", kQ);
    linear(source, blk + "attn_q_b.weight", stored + ".attn.wq_b.weight", kH * kHeadDim, kQ);
    linear(source, blk + "attn_kv.weight", stored + ".attn.wkv.weight", kHeadDim, kD);
    norm(source, blk + "attn_kv_a_norm.weight", stored + ".attn.kv_norm.weight", kHeadDim);
    linear(source, blk + "attn_output_a.weight", stored + ".attn.wo_a.weight", kG * kRank, kH * kHeadDim / kG);
    linear(source, blk + "attn_output_b.weight", stored + ".attn.wo_b.weight", kD, kG * kRank);
    if (ratio != 0) compressor(source, blk + "attn_compressor", stored + ".attn.compressor", ratio, kHeadDim);
    if (ratio == 4) {
      linear(source, blk + "indexer.attn_q_b.weight", stored + ".attn.indexer.wq_b.weight", kIndexHeads * kIndexDim, kQ);
      linear(source, blk + "indexer.proj.weight", stored + ".attn.indexer.weights_proj.weight", kIndexHeads, kD);
      compressor(source, blk + "indexer_compressor", stored + ".attn.indexer.compressor", ratio, kIndexDim);
    }
    linear(source, blk + "ffn_gate_inp.weight", stored + ".ffn.gate.weight", kE, kD);
    if (hash) {
      std::vector<float> table;
      for (int64_t t = 0; t < kV; ++t) {
        for (int64_t k = 0; k < kK; ++k) table.push_back(static_cast<float>((3 * t + 5 * k + layer) % 8));
      }
      ++n_tensors;  // integers are not part of the sum
      add(source, blk + "ffn_gate_tid2eid.weight", {kV, kK}, table);
    } else {
      add(source, blk + "exp_probs_b.bias", {kE}, make(stored + ".ffn.gate.bias", kE, 0.2, 0.0));
    }
    experts(source, blk + "ffn_gate_exps.weight", stored, "w1", kI, kD);
    experts(source, blk + "ffn_up_exps.weight", stored, "w3", kI, kD);
    experts(source, blk + "ffn_down_exps.weight", stored, "w2", kD, kI);
    linear(source, blk + "ffn_gate_shexp.weight", stored + ".ffn.shared_experts.w1.weight", kI, kD);
    linear(source, blk + "ffn_up_shexp.weight", stored + ".ffn.shared_experts.w3.weight", kI, kD);
    linear(source, blk + "ffn_down_shexp.weight", stored + ".ffn.shared_experts.w2.weight", kD, kI);
  }

  static void set_metadata(Metadata& m, bool draft) {
    const auto u32 = [&](const char* key, uint32_t value) { m.set(std::string("deepseek4.") + key, value); };
    const auto f32 = [&](const char* key, float value) { m.set(std::string("deepseek4.") + key, value); };
    m.set("general.architecture", std::string("deepseek4"));
    u32("block_count", draft ? 5 : 4);
    if (draft) u32("nextn_predict_layers", 1);
    u32("context_length", 1024);
    u32("embedding_length", kD);
    u32("attention.head_count", kH);
    u32("attention.head_count_kv", 1);
    u32("attention.key_length", kHeadDim);
    u32("attention.value_length", kHeadDim);
    f32("attention.layer_norm_rms_epsilon", 1e-6f);
    u32("attention.q_lora_rank", kQ);
    u32("attention.sliding_window", 8);
    u32("attention.output_group_count", kG);
    u32("attention.output_lora_rank", kRank);
    m.set("deepseek4.attention.compress_ratios", std::vector<int32_t>{0, 4, 128, 4, 0});
    f32("attention.compress_rope_freq_base", 160000.0f);
    u32("attention.indexer.head_count", kIndexHeads);
    u32("attention.indexer.key_length", kIndexDim);
    u32("attention.indexer.top_k", 4);
    u32("rope.dimension_count", 8);
    f32("rope.freq_base", 10000.0f);
    m.set("deepseek4.rope.scaling.type", std::string("yarn"));
    f32("rope.scaling.factor", 16.0f);
    u32("rope.scaling.original_context_length", 64);
    u32("expert_count", kE);
    u32("expert_used_count", kK);
    u32("expert_feed_forward_length", kI);
    u32("expert_shared_count", 1);
    f32("expert_weights_scale", 1.5f);
    m.set("deepseek4.expert_weights_norm", true);
    u32("expert_gating_func", 4);
    m.set("deepseek4.swiglu_clamp_exp", std::vector<float>(5, 0.5f));
    m.set("deepseek4.swiglu_clamp_shexp", std::vector<float>(5, 0.5f));
    u32("hyper_connection.count", kHc);
    u32("hyper_connection.sinkhorn_iterations", 20);
    f32("hyper_connection.epsilon", 1e-6f);
    u32("hash_layer_count", 2);
  }
};

// Logits of every position: [n, 64].
inline std::vector<float> logits_of(const Evaluator& evaluator, const OutputHead& head) {
  const TokenStore& states = evaluator.final_states();
  std::vector<float> rows(static_cast<size_t>(states.n_rows() * states.width()));
  states.read(0, states.n_rows(), rows.data());
  std::vector<float> logits(static_cast<size_t>(states.n_rows() * head.n_vocab()));
  head.logits(rows.data(), states.n_rows(), logits.data());
  return logits;
}

inline double logsumexp(const float* logits, int64_t n) {
  double largest = -1e30, sum = 0.0;
  for (int64_t i = 0; i < n; ++i) largest = std::max(largest, static_cast<double>(logits[i]));
  for (int64_t i = 0; i < n; ++i) sum += std::exp(static_cast<double>(logits[i]) - largest);
  return largest + std::log(sum);
}

}  // namespace quern
