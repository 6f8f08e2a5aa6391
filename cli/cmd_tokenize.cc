#include <array>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>
#include <string>

#include "cli/cli.h"
#include "formats/base/file.h"
#include "formats/model/model_source.h"
#include "runtime/tokenizer/tokenizer.h"

namespace quern::cli {
namespace {

struct TokenizeOptions {
  std::string model;
  std::string text_file;
  bool ids_only = false;
  bool count_only = false;
};

constexpr uint64_t kMaxTextBytes = uint64_t{1} << 30;

// "-" is standard input. What is no regular file, as a pipe of the shell, is read like it.
std::string read_text(const std::string& name) {
  if (name != "-" && !std::filesystem::is_fifo(name)) return read_text_file(name, kMaxTextBytes);
  std::ifstream pipe;
  if (name != "-") pipe.open(name, std::ios::binary);
  std::istream& in = name == "-" ? std::cin : pipe;
  std::string text;
  for (std::array<char, 65536> part; in.read(part.data(), part.size()) || in.gcount() > 0;) {
    text.append(part.data(), static_cast<size_t>(in.gcount()));
    if (text.size() > kMaxTextBytes) throw Error(ErrorKind::kUsage, "the text is larger than " + std::to_string(kMaxTextBytes) + " bytes");
  }
  return text;
}

// Special tokens that the text spells out count as such, as in the tokenizer that the model comes with.
int run_tokenize(const TokenizeOptions& options) {
  const std::string text = read_text(options.text_file);
  const std::unique_ptr<Tokenizer> tokenizer = make_tokenizer(open_model(options.model)->metadata());
  std::vector<int32_t> ids;
  try {
    ids = tokenizer->encode(text, /*add_special=*/true, /*parse_special=*/true);
  } catch (Error& error) {
    error.file(options.text_file);
    throw;
  }
  if (options.count_only) {
    std::cout << ids.size() << '\n';
    return 0;
  }
  for (const int32_t id : ids) {
    std::cout << id;
    if (!options.ids_only) std::cout << "\t\"" << printable(tokenizer->piece(id)) << '"';
    std::cout << '\n';
  }
  return 0;
}

}  // namespace

void add_tokenize(CLI::App& app, Context& context) {
  auto options = std::make_shared<TokenizeOptions>();
  CLI::App* verb = app.add_subcommand("tokenize", "Show the tokens of a text");
  verb->group("Look");
  verb->add_option("MODEL", options->model, "GGUF file, first shard, or checkpoint folder")->required()->group("Input");
  verb->add_option("--text", options->text_file, "file with the text, UTF-8; -: standard input")
      ->required()
      ->type_name("FILE")
      ->group("Input");
  CLI::Option* ids = verb->add_flag("--ids", options->ids_only, "only the ids, one per line")->group("Output");
  verb->add_flag("--count", options->count_only, "only the number of tokens")->group("Output")->excludes(ids);
  verb->footer("quern tokenize model.gguf --text book.txt --count");
  verb->callback([options, &context] { context.command = [options] { return run_tokenize(*options); }; });
}

}  // namespace quern::cli
