#include <fcntl.h>
#include <gmock/gmock.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
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

// Starts quern with its output in files of `dir`; with address_space_kib under `ulimit -v`, with a fault as tests/faults/faults.cc makes
// it.
pid_t start(const fs::path& dir, const std::vector<std::string>& arguments, uint64_t address_space_kib = 0, const std::string& fault = "") {
  std::vector<std::string> words = {QUERN_BINARY};
  if (address_space_kib != 0) {
    words = {"/bin/sh", "-c", "ulimit -v " + std::to_string(address_space_kib) + " && exec \"$0\" \"$@\"", QUERN_BINARY};
  }
  if (!fault.empty()) words = {"/usr/bin/env", "FAULT=" + fault, "LD_PRELOAD=" QUERN_FAULTS, QUERN_BINARY};
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
  EXPECT_EQ(posix_spawn(&pid, argv.front(), &actions, nullptr, argv.data(), environ), 0);
  posix_spawn_file_actions_destroy(&actions);
  return pid;
}

int wait_for(pid_t pid) {
  int status = 0;
  waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

json run_json(const fs::path& dir, std::vector<std::string> arguments, uint64_t address_space_kib = 0) {
  arguments.push_back("--json");
  EXPECT_EQ(wait_for(start(dir, arguments, address_space_kib)), 0) << read_text_file(dir / "stderr", 1 << 20);
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

// Number of times that the command changes the disk (a write, a sync, a rename): where it can be killed.
uint64_t count_changes(const fs::path& dir, const std::vector<std::string>& arguments) {
  EXPECT_EQ(wait_for(start(dir, arguments, 0, "count")), 0) << read_text_file(dir / "stderr", 1 << 20);
  const std::string said = read_text_file(dir / "stderr", 1 << 20), line = "faults: change ";
  const size_t at = said.find(line);
  EXPECT_NE(at, std::string::npos) << said;
  return at == std::string::npos ? 1 : std::stoul(said.substr(at + line.size()));
}

// Runs the command and kills it at its nth change of the disk. Returns its exit code; -SIGKILL if there was an nth.
int run_until_change(const fs::path& dir, const std::vector<std::string>& arguments, uint64_t n) {
  return wait_for(start(dir, arguments, 0, "change:kill:" + std::to_string(n)));
}

// Kills need the library of tests/faults, which a build with sanitizers does not have.
class Kills : public testing::Test {
 protected:
  void SetUp() override {
    if (std::string_view(QUERN_FAULTS).empty()) GTEST_SKIP() << "built with sanitizers";
  }
};
class ProcessKills : public Kills {};
class SlowProcessKills : public Kills {};

TEST_F(ProcessKills, LeaveNothingIncompleteUnderAFinalName) {
  const TempDir dir;
  const std::vector<std::string> types = {"--type", "Q4_K_M", "--type", "Q8_0", "--type", "BF16"};
  const auto arguments = [&](const fs::path& out) {
    std::vector<std::string> words = {"convert", bundled("mini-v4").string(), "-o", out.string(), "--force"};
    words.insert(words.end(), types.begin(), types.end());
    return words;
  };
  const uint64_t n_changes = count_changes(dir.path(), arguments(dir / "whole"));
  const auto expected = hashes(dir / "whole");

  std::mt19937 random(5);
  int killed = 0;
  for (int i = 0; i < 20; ++i) {
    killed += run_until_change(dir.path(), arguments(dir / "out"), 1 + random() % n_changes) == -SIGKILL ? 1 : 0;
    for (const std::string& name : final_names(dir / "out")) {
      if (name == "SHA256SUMS") continue;  // lists what is there, which differs between the kills
      EXPECT_EQ(sha256_hex(read_file(dir / "out" / name, 1 << 30)), expected.at(name)) << name;
    }
  }
  EXPECT_GE(killed, 15);
  run_json(dir.path(), arguments(dir / "out"));  // what was left does not stand in the way
  EXPECT_EQ(hashes(dir / "out"), expected);
}

// A command that writes into a folder.
struct Command {
  std::vector<std::string> words;  // without -o
  std::string output;              // in the folder: what -o names; empty: the folder itself
  bool goes_on = true;             // what a kill left is used; otherwise the next run begins again

  std::vector<std::string> into(const fs::path& folder) const {
    std::vector<std::string> all = words;
    all.insert(all.end(), {"-o", (output.empty() ? folder : folder / output).string()});
    return all;
  }
};

// Lists of what is there and what a run keeps for the next one differ between the kills, the index of a part has a time in it.
bool may_differ(const std::string& name) {
  return name == "SHA256SUMS" || name == ".quern-publish.json" || name.ends_with(".tensors.json") ||
         (name.find(".part-0") != std::string::npos && name.ends_with(".json"));
}

std::map<std::string, std::string> hashes_without_times(const fs::path& folder) {
  std::map<std::string, std::string> found = hashes(folder);
  std::erase_if(found, [](const auto& file) { return file.first.find(".part-0") != std::string::npos && file.first.ends_with(".json"); });
  return found;
}

// The command has nothing left to do: it was killed after its last step.
bool is_done(const std::string& said) {
  return said.find("--force") != std::string::npos && said.find("begun by another run") == std::string::npos;
}

// Kills the command at a random change of the disk, lets the next one go on, and so on until one ends; `rounds` times. Returns the number
// of kills.
int kill_until_done(const TempDir& dir, const Command& command, int rounds, uint32_t seed) {
  for (const char* folder : {"whole", "again", "out"}) fs::create_directory(dir / folder);
  EXPECT_EQ(wait_for(start(dir.path(), command.into(dir / "whole"))), 0) << read_text_file(dir / "stderr", 1 << 20);
  const uint64_t n_changes = count_changes(dir.path(), command.into(dir / "again"));
  const auto expected = hashes_without_times(dir / "whole");
  EXPECT_EQ(hashes_without_times(dir / "again"), expected);

  std::mt19937 random(seed);
  int killed = 0, went_on = 0;
  for (int round = 0; round < rounds; ++round) {
    fs::remove_all(dir / "out");
    fs::create_directory(dir / "out");
    for (bool done = false; !done;) {
      const int code = run_until_change(dir.path(), command.into(dir / "out"), 1 + random() % (n_changes + n_changes / 8 + 1));
      const std::string said = read_text_file(dir / "stderr", 1 << 20);
      went_on += said.find("going on from an earlier run") != std::string::npos ? 1 : 0;
      killed += code == -SIGKILL ? 1 : 0;
      done = code == 0 || is_done(said);
      EXPECT_TRUE(done || code == -SIGKILL) << said;
      if (!done && code != -SIGKILL) return killed;
      for (const std::string& name : final_names(dir / "out")) {
        if (may_differ(name)) continue;
        EXPECT_EQ(sha256_hex(read_file(dir / "out" / name, 1 << 30)), expected.at(name)) << name;
      }
    }
    EXPECT_EQ(hashes_without_times(dir / "out"), expected);  // no part, no journal, the same bytes
  }
  EXPECT_GE(went_on, command.goes_on ? killed / 3 : 0);  // others were killed before there was anything to go on from
  return killed;
}

Command split_conversion() {
  return {{"convert", bundled("mini-v4").string(), "--type", "Q4_K_M", "--type", "Q8_0", "--split-size", "1MB", "--sync-size", "100KB"},
          ""};
}

TEST_F(ProcessKills, LetTheNextRunGoOnAndGiveTheSameBytes) {
  const TempDir dir;
  EXPECT_GE(kill_until_done(dir, split_conversion(), 3, 1), 3);
}

TEST_F(SlowProcessKills, OfConvertLoseNothing) {
  const TempDir split, whole;
  int killed = kill_until_done(split, split_conversion(), 60, 2);
  const Command unsplit = {{"convert", bundled("mini-v3").string(), "--type", "Q4_0", "--type", "BF16", "--sync-size", "50KB"}, ""};
  killed += kill_until_done(whole, unsplit, 90, 3);
  RecordProperty("kills", killed);
  EXPECT_GE(killed, 200);
}

// A text for statistics, and options that make them quick.
fs::path calibration_text(const TempDir& dir) {
  std::string text;
  for (int i = 0; i < 400; ++i) text += "The " + std::to_string(i) + " horses of the mill ground " + std::to_string(i * 7) + " sacks.\n";
  write_text(dir / "text.txt", text);
  return dir / "text.txt";
}

TEST_F(SlowProcessKills, OfQuantizeLoseNothing) {
  const TempDir dir;
  convert(bundled("mini-v4"), options_for(dir / "source", {"BF16"}));
  const std::string source = file_ending(dir / "source", ".gguf").string();
  const int killed = kill_until_done(dir, {{"quantize", source, "--type", "Q4_K_M", "--sync-size", "50KB"}, "q.gguf"}, 30, 4);
  RecordProperty("kills", killed);
  EXPECT_GE(killed, 30);
}

// The model runs beside the encoders, on what they have encoded so far: a run that goes on has to run it through what is written already.
TEST_F(SlowProcessKills, OfSequentialFeedbackLoseNothing) {
  int killed = 0;
  for (const char* model : {"mini-llama3", "mini-qwen3moe"}) {
    const TempDir dir;
    const Command convert = {{"convert", bundled(model).string(), "--type", "Q4_0", "--sync-size", "50KB", "--feedback", "sequential",
                              "--calib-text", calibration_text(dir).string(), "--calib-tokens", "1024"},
                             ""};
    killed += kill_until_done(dir, convert, 8, 11);
  }
  RecordProperty("kills", killed);
  EXPECT_GE(killed, 16);
}

TEST_F(SlowProcessKills, OfPublishLoseNothing) {
  const TempDir dir;
  const Command publish = {{"publish", bundled("mini-v4").string(), "--type", "Q4_K_M", "--type", "Q8_0", "--sync-size", "100KB"}, ""};
  const int killed = kill_until_done(dir, publish, 20, 5);
  RecordProperty("kills", killed);
  EXPECT_GE(killed, 20);
}

TEST_F(SlowProcessKills, OfMeasurementsLoseNothing) {
  const std::string model = bundled("mini-llama3").string();
  int killed = 0;
  const auto kill_measurement = [&](std::vector<std::string> words, const std::string& output, uint32_t seed) {
    const TempDir dir;
    words.insert(words.end(), {"--calib-text", calibration_text(dir).string()});
    killed += kill_until_done(dir, {words, output, false}, 10, seed);
  };
  kill_measurement({"imatrix", model, "--ctx", "128", "--chunks", "8"}, "i.gguf", 6);
  kill_measurement({"statistics", model, "--ctx", "128", "--calib-tokens", "1024"}, "", 7);
  const TempDir cache;
  kill_measurement({"fit", model, "--ctx", "64", "--chunks", "2", "--check-chunks", "2", "--rounds", "0", "--size", "1500KB", "--cache",
                    cache.path().string()},
                   "recipe.json", 8);
  RecordProperty("kills", killed);
  EXPECT_GE(killed, 30);
}

TEST_F(SlowProcessKills, OfPartsAndTheirMergeLoseNothing) {
  const TempDir dir, parts, merged;
  const std::string plan = (dir / "plan.json").string();
  const std::vector<std::string> words = {"convert", bundled("mini-v4"), "--type", "Q4_K_M", "--type", "Q8_0", "-o", (dir / "parts")};
  std::vector<std::string> planning = words;
  planning.insert(planning.end(), {"--plan-out", plan});
  ASSERT_EQ(wait_for(start(dir.path(), planning)), 0);
  int killed = kill_until_done(parts, {{"convert", "--plan", plan, "--part", "1/2"}, "", false}, 15, 9);
  Command merge = {{"merge", plan}, "", false};
  for (const char* part : {"1/2", "2/2"}) {
    ASSERT_EQ(wait_for(start(dir.path(), {"convert", "--plan", plan, "--part", part})), 0);
  }
  for (const auto& entry : fs::directory_iterator(dir / "parts")) {
    if (entry.path().extension() == ".json") merge.words.push_back(entry.path().string());
  }
  killed += kill_until_done(merged, merge, 15, 10);
  RecordProperty("kills", killed);
  EXPECT_GE(killed, 30);
}

// Kills quern until it leaves work that can be gone on with.
void leave_begun_work(const TempDir& dir, const std::vector<std::string>& arguments) {
  for (int i = 0; i < 100; ++i) {
    fs::remove_all(dir / "out");
    const pid_t pid = start(dir.path(), arguments);
    const auto has_record = [&] {
      if (!fs::exists(dir / "out")) return false;
      for (const auto& entry : fs::directory_iterator(dir / "out")) {
        if (entry.path().extension() == ".journal") return fs::file_size(entry.path()) > 1500;
      }
      return false;
    };
    for (int wait = 0; wait < 5000 && !has_record(); ++wait) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    kill(pid, SIGKILL);
    if (wait_for(pid) == -SIGKILL && final_names(dir / "out").empty()) return;
  }
  FAIL() << "always too late";
}

TEST(Process, RefusesToGoOnFromAnotherSourceOrWithOtherOptions) {
  const TempDir dir;
  copy_model("mini-v4", dir / "model");
  std::vector<std::string> arguments = {
      "convert", (dir / "model").string(), "--type", "Q4_K_M", "--split-size", "1MB", "-o", (dir / "out"), "--sync-size", "100KB"};
  leave_begun_work(dir, arguments);
  const auto refused = [&](const std::vector<std::string>& words, const std::string& why) {
    EXPECT_EQ(wait_for(start(dir.path(), words)), 2);
    EXPECT_NE(read_text_file(dir / "stderr", 1 << 20).find(".gguf.part: was begun by another run: " + why), std::string::npos)
        << read_text_file(dir / "stderr", 1 << 20);
  };
  std::vector<std::string> other = arguments;
  other.insert(other.end(), {"--effort", "fast"});
  refused(other, "types, recipe or options differ; --force begins again");
  const fs::path shard = dir / "model" / "model-00001-of-00002.safetensors";
  fs::last_write_time(shard, fs::last_write_time(shard) + std::chrono::seconds(1));
  refused(arguments, "the source file 'model-00001-of-00002.safetensors' differs; --force begins again");
  arguments.push_back("--force");
  run_json(dir.path(), arguments);
  for (const auto& [name, sha256] : hashes(dir / "out")) EXPECT_FALSE(name.ends_with(".part") || name.ends_with(".journal")) << name;
}

TEST(Process, NoticesThatWhatItWouldGoOnFromIsDamaged) {
  const TempDir dir;
  std::vector<std::string> arguments = {"convert", bundled("mini-v4"), "--type",      "Q4_K_M", "--split-size", "1MB",
                                        "-o",      (dir / "out"),      "--sync-size", "100KB"};
  leave_begun_work(dir, arguments);
  fs::path first;
  for (const auto& entry : fs::directory_iterator(dir / "out")) {
    if (entry.path().extension() == ".part" && (first.empty() || entry.path() < first)) first = entry.path();
  }
  std::vector<std::byte> bytes = read_file(first, 1 << 30);
  bytes[100] ^= std::byte{1};
  write_file_atomically(first, {reinterpret_cast<const char*>(bytes.data()), bytes.size()}, OutputFile::Overwrite::kAllow);
  EXPECT_EQ(wait_for(start(dir.path(), arguments)), 3);
  const std::string said = read_text_file(dir / "stderr", 1 << 20);
  EXPECT_NE(said.find("does not hold what its journal says (a fault of the disk?); --force begins again"), std::string::npos) << said;
  arguments.push_back("--force");
  run_json(dir.path(), arguments);
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

// 16 GB of BF16 with the default budget where 1.5 GiB may be mapped; not all that is mapped is resident, so this is stricter than a cgroup.
TEST(SlowProcess, SixteenGigabytesFitInto1536MiB) {
  constexpr uint64_t kLimitKib = 1536 * 1024;
  const TempDir dir;
  fs::create_directory(dir / "model");
  json config = shipped_config("llama-3.3-70b");
  config["num_hidden_layers"] = 7;
  write_sparse_v4(dir / "model", config, 4, DType::BF16);
  const auto check = [](const char* verb, const json& report) {
    const uint64_t peak = report.at("peak_memory_bytes").get<uint64_t>();
    testing::Test::RecordProperty(std::string(verb) + "_peak_bytes", std::to_string(peak));
    EXPECT_LE(peak, kLimitKib * 1024);
    EXPECT_EQ(report.at("bytes_read"), report.at("stored_bytes"));
  };
  const json converted =
      run_json(dir.path(), {"convert", dir / "model", "-o", dir / "out", "--type", "Q4_0", "--effort", "fast"}, kLimitKib);
  EXPECT_GE(converted.at("stored_bytes").get<uint64_t>(), 16'000'000'000u);
  check("convert", converted);
  const std::string source = file_ending(dir / "out", ".gguf");
  check("quantize", run_json(dir.path(), {"quantize", source, "-o", dir / "q.gguf", "--type", "Q2_K", "--effort", "fast"}, kLimitKib));
  EXPECT_EQ(wait_for(start(dir.path(), {"quantize", source, "-o", dir / "r.gguf", "--type", "Q2_K", "--memory", "20MiB"}, kLimitKib)), 2);
  EXPECT_NE(read_text_file(dir / "stderr", 1 << 20).find("is too small; the smallest that works is"), std::string::npos);
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
