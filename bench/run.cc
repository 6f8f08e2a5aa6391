// Times whole jobs on a synthetic model: quern's program and, if --llama names the bin folder of a llama.cpp build, theirs on the
// same file with the same threads, alternately. Prints the ratios of the medians as a markdown table and as JSON.
//
//   build/release/bench/run --work /var/tmp/bench --llama ~/llama.cpp/build/bin --rows perplexity --type BF16,Q4_K_M --json out.json
//
// Rows: quantize (one file to one type, with an importance matrix), outputs (three types from one read of the checkpoint against the
// sum of the single ones), perplexity, imatrix (of a mixture of experts). The work folder keeps the models and the files made of
// them, so that a second run only measures; times include reading them from the page cache and writing results.

#include <CLI/CLI.hpp>
#include <cmath>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "bench/job.h"
#include "bench/synthetic_model.h"
#include "formats/base/error.h"
#include "formats/base/resources.h"

namespace quern::bench {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;
using Command = std::vector<std::string>;

struct Options {
  fs::path work = "/var/tmp/quern-bench";
  fs::path quern = QUERN_PROGRAM;
  fs::path llama;
  std::string parameters = "373M";
  std::string moe_parameters = "400M";
  std::vector<std::string> rows = {"quantize", "outputs", "perplexity", "imatrix"};
  std::vector<std::string> types = {"BF16", "Q8_0", "Q6_K", "Q4_K_M", "Q2_K", "IQ4_XS", "IQ3_XXS", "IQ2_XXS"};
  int threads = available_threads();
  int repeats = 5;
  int64_t chunks = 8;
  fs::path json;
};

// One line of the table: the same job by both programs.
struct Row {
  std::string job;
  std::string unit;     // of what the rates count
  double amount = 0.0;  // done by one run
  std::vector<Cost> ours, theirs;
};

class Bench {
 public:
  explicit Bench(const Options& options) : options_(options) { fs::create_directories(options.work); }

  void run() {
    for (const std::string& row : options_.rows) {
      if (row == "quantize") {
        for (const std::string& type : options_.types) quantize_row(type);
      } else if (row == "outputs") {
        outputs_row();
      } else if (row == "perplexity") {
        for (const std::string& type : options_.types) perplexity_row(type);
      } else if (row == "imatrix") {
        imatrix_row();
      } else {
        throw Error(ErrorKind::kUsage, "row '" + row + "' is not quantize, outputs, perplexity or imatrix");
      }
    }
  }

  const std::vector<Row>& rows() const noexcept { return rows_; }

 private:
  static constexpr int64_t kContext = 512;

  fs::path log() const { return options_.work / "log.txt"; }
  std::string threads() const { return std::to_string(options_.threads); }
  Command quern(Command arguments) const {
    arguments.insert(arguments.begin(), options_.quern.string());
    arguments.insert(arguments.end(), {"--threads", threads()});
    return arguments;
  }
  Command llama(const char* tool, Command arguments) const {
    arguments.insert(arguments.begin(), (options_.llama / tool).string());
    return arguments;
  }

  fs::path checkpoint(const SyntheticModel& model) const {
    const fs::path folder = options_.work / ((model.moe ? "moe-" : "dense-") + std::to_string(model.parameters() / 1000000) + "M");
    if (!fs::exists(folder / "model.safetensors")) {
      std::cerr << "writing " << folder.string() << '\n';
      do_aside([&] { write_checkpoint_of(model, folder); });
    }
    return folder;
  }
  SyntheticModel dense() const { return dense_model(static_cast<int64_t>(parse_size(options_.parameters))); }

  fs::path text() const {
    const fs::path file = options_.work / "text.txt";
    std::ofstream(file) << synthetic_text(options_.chunks * kContext);
    return file;
  }

  // The model as GGUF of a type; i-quants of few bits need an importance matrix.
  fs::path gguf(const SyntheticModel& model, const std::string& type) const {
    const fs::path folder = checkpoint(model), file = folder / (type + ".gguf");
    if (fs::exists(file)) return file;
    std::cerr << "writing " << file.string() << '\n';
    if (type == "BF16") {
      const fs::path made = options_.work / "made";
      run_command(quern({"convert", folder, "-o", made, "--type", type, "--force"}), log());
      for (const auto& entry : fs::directory_iterator(made)) {
        if (entry.path().extension() == ".gguf") fs::rename(entry.path(), file);
      }
      fs::remove_all(made);
    } else {
      run_command(quern({"quantize", gguf(model, "BF16"), "-o", file, "--type", type, "--imatrix", imatrix(model)}), log());
    }
    return file;
  }
  fs::path imatrix(const SyntheticModel& model) const {
    const fs::path file = checkpoint(model) / "imatrix.gguf";
    if (!fs::exists(file)) run_command(imatrix_command(gguf(model, "BF16"), file), log());
    return file;
  }
  Command imatrix_command(const fs::path& model, const fs::path& file) const {
    return quern({"imatrix", model, "--calib-text", text(), "--chunks", std::to_string(options_.chunks), "-o", file, "--force"});
  }

  void measure(Row row, const Command& ours, const Command& theirs) {
    for (int i = 0; i < options_.repeats; ++i) {
      row.ours.push_back(run_command(ours, log()));
      if (!theirs.empty() && !options_.llama.empty()) row.theirs.push_back(run_command(theirs, log()));
      std::cerr << row.job << ' ' << i + 1 << '/' << options_.repeats << ": " << row.ours.back().seconds << " s";
      if (!row.theirs.empty()) std::cerr << ", llama.cpp " << row.theirs.back().seconds << " s";
      std::cerr << '\n';
    }
    rows_.push_back(std::move(row));
  }

  void quantize_row(const std::string& type) {
    const SyntheticModel model = dense();
    const fs::path in = gguf(model, "BF16"), matrix = imatrix(model), out = options_.work / "out.gguf";
    measure({"quantize " + type, "M weights/s", static_cast<double>(model.parameters()) / 1e6, {}, {}},
            quern({"quantize", in, "-o", out, "--type", type, "--imatrix", matrix, "--force"}),
            llama("llama-quantize", {"--imatrix", matrix, in, out, type, threads()}));
    fs::remove(out);
  }

  void outputs_row() {
    const SyntheticModel model = dense();
    const fs::path in = checkpoint(model), out = options_.work / "outputs";
    const Command types = {"--type", "Q8_0", "--type", "Q6_K", "--type", "Q4_K_M"};
    const double amount = static_cast<double>(model.parameters()) / 1e6;
    for (size_t i = 0; i <= types.size(); i += 2) {
      Command command = {"convert", in, "-o", out, "--force"};
      const bool all = i == types.size();
      command.insert(command.end(), types.begin() + (all ? 0 : static_cast<ptrdiff_t>(i)),
                     all ? types.end() : types.begin() + static_cast<ptrdiff_t>(i) + 2);
      measure({all ? "Q8_0, Q6_K and Q4_K_M from one read" : "checkpoint to " + types[i + 1], "M weights/s", amount, {}, {}},
              quern(command), {});
      fs::remove_all(out);
    }
  }

  void perplexity_row(const std::string& type) {
    const fs::path model = gguf(dense(), type), file = text();
    const std::string chunks = std::to_string(options_.chunks);
    measure({"perplexity " + type, "tokens/s", static_cast<double>(options_.chunks * kContext), {}, {}},
            quern({"perplexity", model, "--eval-text", file, "--ctx", std::to_string(kContext), "--chunks", chunks}),
            llama("llama-perplexity",
                  {"-m", model, "-f", file, "-c", std::to_string(kContext), "-b", "2048", "-t", threads(), "--chunks", chunks}));
  }

  void imatrix_row() {
    const SyntheticModel moe = moe_model(static_cast<int64_t>(parse_size(options_.moe_parameters)));
    const fs::path model = gguf(moe, "BF16"), out = options_.work / "out.gguf";
    measure({"imatrix of a mixture of experts", "tokens/s", static_cast<double>(options_.chunks * kContext), {}, {}},
            imatrix_command(model, out),
            llama("llama-imatrix", {"-m", model, "-f", text(), "-c", std::to_string(kContext), "-b", "2048", "-t", threads(), "--chunks",
                                    std::to_string(options_.chunks), "-o", out}));
    fs::remove(out);
  }

  const Options& options_;
  std::vector<Row> rows_;
};

std::string cell(double value) {
  char text[32];
  std::snprintf(text, sizeof text, value < 10.0 ? "%.2f" : value < 100.0 ? "%.1f" : "%.0f", value);
  return text;
}

void print_markdown(const std::vector<Row>& rows) {
  std::cout << "| job | quern | llama.cpp | unit | ratio | ratio of CPU time | peak MiB |\n|---|---|---|---|---|---|---|\n";
  for (const Row& row : rows) {
    const Cost ours = median(row.ours);
    std::cout << "| " << row.job << " | " << cell(row.amount / ours.seconds) << " | ";
    if (row.theirs.empty()) {
      std::cout << "| " << row.unit << " | | ";
    } else {
      const Cost theirs = median(row.theirs);
      std::cout << cell(row.amount / theirs.seconds) << " | " << row.unit << " | " << cell(theirs.seconds / ours.seconds) << " | "
                << cell(theirs.cpu_seconds / ours.cpu_seconds);
    }
    std::cout << " | " << cell(ours.peak_mib) << " |\n";
  }
}

ordered_json to_json(const std::vector<Cost>& costs) {
  ordered_json runs = ordered_json::array();
  for (const Cost& cost : costs)
    runs.push_back({{"seconds", cost.seconds}, {"cpu_seconds", cost.cpu_seconds}, {"peak_mib", cost.peak_mib}});
  return runs;
}

void write_json(const Options& options, const std::vector<Row>& rows) {
  ordered_json root = {{"schema", "quern.bench/1"}, {"parameters", options.parameters}, {"threads", options.threads}};
  root["rows"] = ordered_json::array();
  for (const Row& row : rows) {
    root["rows"].push_back(
        {{"job", row.job}, {"unit", row.unit}, {"amount", row.amount}, {"quern", to_json(row.ours)}, {"llama.cpp", to_json(row.theirs)}});
  }
  std::ofstream(options.json) << root.dump(1) << '\n';
}

}  // namespace
}  // namespace quern::bench

int main(int argc, char** argv) {
  quern::bench::Options options;
  CLI::App app("Times whole jobs on a synthetic model");
  app.add_option("--work", options.work, "folder of models and results; default /var/tmp/quern-bench");
  app.add_option("--quern", options.quern, "program to measure; default the one of this build");
  app.add_option("--llama", options.llama, "bin folder of a llama.cpp build to compare with");
  app.add_option("--parameters", options.parameters, "of the dense model; default 373M");
  app.add_option("--moe-parameters", options.moe_parameters, "of the mixture of experts; default 400M");
  app.add_option("--rows", options.rows, "of quantize, outputs, perplexity, imatrix; default all")->delimiter(',');
  app.add_option("--type", options.types, "types of the quantize and perplexity rows")->delimiter(',');
  app.add_option("--threads", options.threads, "of both programs; default all");
  app.add_option("--repeat", options.repeats, "runs of each; default 5");
  app.add_option("--chunks", options.chunks, "of 512 tokens; default 8");
  app.add_option("--json", options.json, "file for every single figure");
  CLI11_PARSE(app, argc, argv);
  try {
    quern::bench::Bench bench(options);
    bench.run();
    quern::bench::print_markdown(bench.rows());
    if (!options.json.empty()) quern::bench::write_json(options, bench.rows());
  } catch (const quern::Error& error) {
    std::cerr << "run: " << error.what() << '\n';
    return 1;
  }
}
