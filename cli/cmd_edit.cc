#include <algorithm>
#include <array>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/cli.h"
#include "cli/progress_bar.h"
#include "convert/record/metadata_json.h"
#include "formats/base/file.h"
#include "formats/base/resources.h"
#include "formats/gguf/gguf_edit.h"

namespace quern::cli {
namespace {

using nlohmann::json;

constexpr uint64_t kMaxTemplateBytes = 4 << 20;
constexpr const char* kTemplateKey = "tokenizer.chat_template";

struct EditOptions {
  std::string file, output, chat_template;
  std::vector<std::string> set, remove;
  bool dry_run = false;
  bool force = false;
  bool json = false;
};

// Keys that say how the file is laid out: another value makes it unreadable.
void check_key(const std::string& key) {
  if (key.starts_with("split.") || key == "general.alignment" || key == gguf::kPaddingKey) {
    throw Error(ErrorKind::kUsage, "'" + printable(key) + "' describes the layout of the file and cannot be edited");
  }
}

// "u32", "str[]": of the value a key has, or what the text looks like.
std::string type_for(const Metadata& metadata, const std::string& key, const std::string& text) {
  if (metadata.find(key) != nullptr) {
    Metadata one;
    one.set(key, *metadata.find(key));
    return metadata_to_json(one).front().at("type");
  }
  const json value = json::parse(text, nullptr, false);
  if (value.is_boolean()) return "bool";
  if (value.is_number_unsigned()) return value.get<uint64_t>() <= UINT32_MAX ? "u32" : "u64";
  if (value.is_number_integer()) return "i32";
  if (value.is_number_float()) return "f32";
  return "str";
}

constexpr std::array kTypes = {"u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "str", "u64", "i64", "f64"};

// Takes ":u32" off the end of a key.
std::optional<std::string> take_type(std::string& key) {
  const size_t colon = key.rfind(':');
  if (colon == std::string::npos) return std::nullopt;
  const std::string type = key.substr(colon + 1);
  const std::string element = type.ends_with("[]") ? type.substr(0, type.size() - 2) : type;
  if (std::ranges::find(kTypes, element) == kTypes.end()) return std::nullopt;
  key.resize(colon);
  return type;
}

bool fits(const json& value, const std::string& type) {
  if (type.ends_with("[]")) {
    const std::string element = type.substr(0, type.size() - 2);
    return value.is_array() && std::ranges::all_of(value, [&](const json& one) { return fits(one, element); });
  }
  if (type == "str") return value.is_string();
  if (type == "bool") return value.is_boolean();
  if (type == "f32" || type == "f64") return value.is_number();
  if (!value.is_number_integer()) return false;
  const int bits = std::stoi(type.substr(1));
  if (type.starts_with("u")) return value.is_number_unsigned() && (bits == 64 || value.get<uint64_t>() < uint64_t{1} << bits);
  if (value.is_number_unsigned()) return value.get<uint64_t>() < uint64_t{1} << (bits - 1);
  return bits == 64 || value.get<int64_t>() >= -(int64_t{1} << (bits - 1));
}

// "key=value" or "key:type=value"; strings as they are, everything else as JSON.
void set_from_text(Metadata& metadata, const std::string& text) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0) throw Error(ErrorKind::kUsage, "--set: '" + printable(text) + "' is not KEY=VALUE");
  std::string key = text.substr(0, equals);
  const std::string value = text.substr(equals + 1);
  const std::optional<std::string> stated = take_type(key);
  check_key(key);
  const std::string type = stated ? *stated : type_for(metadata, key, value);
  const json parsed = type == "str" ? json(value) : json::parse(value, nullptr, false);
  if (!fits(parsed, type))
    throw Error(ErrorKind::kUsage, "--set: '" + printable(value) + "' is not a value of type " + type + " ('" + printable(key) + "')");
  const Metadata one = metadata_from_json(json::array({{{"key", key}, {"type", type}, {"value", parsed}}}));
  metadata.set(key, one.entries().front().second);
}

Metadata edited(const Metadata& old, const EditOptions& options) {
  Metadata metadata = old;
  for (const std::string& key : options.remove) {
    check_key(key);
    if (!metadata.erase(key)) throw Error(ErrorKind::kUsage, "--remove: the file has no key '" + printable(key) + "'");
  }
  for (const std::string& text : options.set) set_from_text(metadata, text);
  if (!options.chat_template.empty()) metadata.set(kTemplateKey, read_text_file(options.chat_template, kMaxTemplateBytes));
  return metadata;
}

void print_result(const EditOptions& options, const std::string& written, const char* way, uint64_t bytes) {
  if (options.json) {
    std::cout
        << json{{"schema", "quern.edit/1"}, {"file", written}, {"way", way}, {"bytes_written", bytes}, {"dry_run", options.dry_run}}.dump(1)
        << '\n';
  } else {
    std::cout << printable(written) << ": " << (options.dry_run ? "would be " : "") << "edited " << way << ", " << format_size(bytes)
              << " written\n";
  }
}

int run_edit(const EditOptions& options) {
  if (options.set.empty() && options.remove.empty() && options.chat_template.empty()) {
    throw Error(ErrorKind::kUsage, "nothing to change; give --set, --remove or --template");
  }
  if (!options.dry_run && gguf::restore_header(options.file)) print_warning("an edit was interrupted; its old header was put back first");
  const InputFile file(options.file);
  const gguf::Header header = gguf::read_header(file);
  const gguf::Edit edit = gguf::plan_edit(header, edited(header.metadata, options));
  const std::string target = options.output.empty() ? options.file : options.output;
  const bool in_place = edit.in_place && options.output.empty();
  std::cerr << "quern: reading " << printable(options.file) << '\n' << "quern: writing " << printable(target) << '\n';
  const uint64_t bytes =
      in_place ? edit.header.size() : edit.header.size() + file.size_bytes() - std::min(file.size_bytes(), header.data_offset);
  if (!in_place && options.output.empty() && !options.force) {
    throw Error(ErrorKind::kUsage, "the header has no room for " + std::to_string(edit.missing_bytes) +
                                       " bytes more; --force writes the file anew (" + format_size(bytes) + "), -o another one")
        .file(options.file);
  }
  print_result(options, target, in_place ? "in place" : "by a copy", bytes);
  if (options.dry_run) return 0;
  if (in_place) {
    gguf::edit_in_place(options.file, edit);
    return 0;
  }
  ProgressBar bar;
  gguf::edit_by_copy(file, target, edit, options.force ? OutputFile::Overwrite::kAllow : OutputFile::Overwrite::kRefuse, bar);
  return 0;
}

}  // namespace

void add_edit(CLI::App& app, Context& context) {
  const auto options = std::make_shared<EditOptions>();
  CLI::App* verb = app.add_subcommand("edit", "Change metadata without copying tensor data");
  verb->group("Publish")->footer("quern edit model.gguf --template fixed.jinja --set general.name=Mine");
  verb->add_option("FILE", options->file, "GGUF file; of a split one the first")->required()->group("Input");
  verb->add_option("--set", options->set, "KEY:TYPE=VALUE for new ones; may be repeated")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false)
      ->group("Change");
  verb->add_option("--remove", options->remove, "may be repeated")->type_name("KEY")->allow_extra_args(false)->group("Change");
  verb->add_option("--template", options->chat_template, "the chat template, Jinja text")->type_name("FILE")->group("Change");
  verb->add_option("-o,--output", options->output, "write a new file; default: the file itself")->type_name("FILE")->group("Output");
  verb->add_flag("--dry-run", options->dry_run, "say how, write nothing")->group("Run");
  verb->add_flag("--force", options->force, "replace files, also FILE by a copy")->group("Run");
  verb->add_flag("--json", options->json, "results as JSON on stdout")->group("Run");
  verb->callback([options, &context] { context.command = [options] { return run_edit(*options); }; });
}

}  // namespace quern::cli
