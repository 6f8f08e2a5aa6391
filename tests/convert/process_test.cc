#include <fcntl.h>
#include <gmock/gmock.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <random>
#include <thread>

#include <nlohmann/json.hpp>

#include "tests/convert/conversion.h"
#include "tests/convert/sparse_model.h"

extern char** environ;

// quern as a process of its own: what a kill leaves behind, and how much memory it takes.

namespace quern::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// Starts quern with its output in files of `dir`.
pid_t start(const fs::path& dir, const std::vector<std::string>& arguments) {
  std::vector<std::string> words = {QUERN_BINARY};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  const std::string out = (dir / "stdout").string(), err = (dir / "stderr").string();
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, out.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0666);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, err.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0666);
  pid_t pid = 0;
  EXPECT_EQ(posix_spawn(&pid, QUERN_BINARY, &actions, nullptr, argv.data(), environ), 0);
  posix_spawn_file_actions_destroy(&actions);
  return pid;
}

int wait_for(pid_t pid) {
  int status = 0;
  waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

json run_json(const fs::path& dir, std::vector<std::string> arguments) {
  arguments.push_back("--json");
  EXPECT_EQ(wait_for(start(dir, arguments)), 0) << read_text_file(dir / "stderr", 1 << 20);
  return json::parse(read_text_file(dir / "stdout", 1 << 20));
}

// Names that do not belong to unfinished work.
std::vector<std::string> final_names(const fs::path& folder) {
  std::vector<std::string> names;
  if (!fs::exists(folder)) return names;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (!name.ends_with(".part") && !name.ends_with(".part.journal")) names.push_back(name);
  }
  return names;
}

TEST(Process, AKillLeavesNothingIncompleteUnderAFinalName) {
  const TempDir dir;
  const std::vector<std::string> types = {"--type", "Q4_K_M", "--type", "Q8_0", "--type", "BF16"};
  const auto arguments = [&](const fs::path& out) {
    std::vector<std::string> words = {"convert", bundled("mini-v4").string(), "-o", out.string(), "--force"};
    words.insert(words.end(), types.begin(), types.end());
    return words;
  };
  run_json(dir.path(), arguments(dir / "whole"));  // and once more, with everything in the page cache
  const auto begin = std::chrono::steady_clock::now();
  run_json(dir.path(), arguments(dir / "whole"));
  const double whole_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  const auto expected = hashes(dir / "whole");

  std::mt19937 random(5);
  int killed = 0;
  for (int i = 0; i < 20; ++i) {
    const pid_t pid = start(dir.path(), arguments(dir / "out"));
    std::this_thread::sleep_for(std::chrono::duration<double>(whole_seconds * 1.2 * static_cast<double>(random() % 1000) / 1000));
    kill(pid, SIGKILL);
    killed += wait_for(pid) == -SIGKILL ? 1 : 0;
    for (const std::string& name : final_names(dir / "out")) {
      if (name == "SHA256SUMS") continue;  // lists what is there, which differs between the kills
      EXPECT_EQ(sha256_hex(read_file(dir / "out" / name, 1 << 30)), expected.at(name)) << name;
    }
  }
  EXPECT_GE(killed, 3);
  run_json(dir.path(), arguments(dir / "out"));  // what was left does not stand in the way
  EXPECT_EQ(hashes(dir / "out"), expected);
}

TEST(Process, AnInterruptRemovesWhatWasBegunAndExitsWith130) {
  const TempDir dir;
  bool stopped = false;
  for (int i = 0; i < 40 && !stopped; ++i) {
    fs::remove_all(dir / "out");
    const pid_t pid = start(dir.path(), {"convert", bundled("tiny-v4-flash").string(), "-o", (dir / "out").string(), "--type", "Q2_K"});
    for (int wait = 0; wait < 5000 && (!fs::exists(dir / "out") || fs::is_empty(dir / "out")); ++wait) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    kill(pid, SIGINT);
    stopped = wait_for(pid) == 130;
    EXPECT_TRUE(!stopped || fs::is_empty(dir / "out"));
  }
  EXPECT_TRUE(stopped);
}

// One layer of V4-Pro: stacks of `n_experts` times 11.7 MB.
json one_layer(int n_experts) {
  json config = shipped_config("deepseek-v4-pro");
  config["num_hidden_layers"] = 1;
  config["num_hash_layers"] = 0;
  config["n_routed_experts"] = n_experts;
  config["compress_ratios"] = std::vector<int>{128, 0};
  config["num_experts_per_tok"] = 2;
  return config;
}

uint64_t peak_of_stack(const TempDir& dir, int n_experts) {
  const fs::path model = dir / std::to_string(n_experts);
  fs::create_directory(model);
  write_sparse_v4(model, one_layer(n_experts), 1);
  const json report = run_json(dir.path(), {"convert", model.string(), "-o", (dir / "out").string(), "--type", "lossless", "--tensors",
                                            "ffn_down_exps", "--threads", "2", "--force"});
  EXPECT_EQ(report.at("bytes_read"), report.at("stored_bytes"));
  EXPECT_GE(report.at("outputs").at(0).at("size_bytes").get<uint64_t>(), static_cast<uint64_t>(n_experts) * 11'600'000);
  return report.at("peak_memory_bytes").get<uint64_t>();
}

TEST(SlowProcess, MemoryDoesNotGrowWithTheSizeOfATensor) {
  const TempDir dir;
  const uint64_t small = peak_of_stack(dir, 4), large = peak_of_stack(dir, 384);  // 45 MB, 4.5 GB
  RecordProperty("small_bytes", std::to_string(small));
  RecordProperty("large_bytes", std::to_string(large));
  EXPECT_LE(large, small + (uint64_t{64} << 20));
}

TEST(SlowProcess, SomeLayersOfA145000TensorCheckpointConvertOnTheirOwn) {
  const TempDir dir;
  const fs::path model = dir / "pro";
  fs::create_directory(model);
  EXPECT_GT(write_sparse_v4(model, shipped_config("deepseek-v4-pro"), 64), 140'000u);
  const json report = run_json(dir.path(), {"convert", model.string(), "-o", (dir / "out").string(), "--type", "Q4_K_M", "--type", "Q8_0",
                                            "--tensors", "^blk\\.(3|4)\\.(attn|indexer|ffn_.*shexp|hc)", "--memory", "700MiB"});
  EXPECT_LE(report.at("peak_memory_bytes").get<uint64_t>(), uint64_t{700} << 20);
  RecordProperty("peak_bytes", std::to_string(report.at("peak_memory_bytes").get<uint64_t>()));
}

}  // namespace
}  // namespace quern::test
