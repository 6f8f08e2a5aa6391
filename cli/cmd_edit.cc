#include <algorithm>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/cli.h"
#include "cli/progress_bar.h"
#include "convert/record/metadata_edit.h"
#include "formats/base/file.h"
#include "formats/base/resources.h"
#include "formats/gguf/gguf_edit.h"
#include "formats/gguf/shards.h"
#include "verify/intact/doctor.h"

namespace quern::cli {
namespace {

using nlohmann::json;

constexpr size_t kShownBytes = 1000;  // of one message

struct EditOptions {
  std::string file, output, chat_template;
  std::vector<std::string> set, remove;
  bool dry_run = false;
  bool force = false;
  bool json = false;
};

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

void require_first_shard(const std::string& path, const gguf::Header& header) {
  try {
    gguf::shard_names(path, header.metadata);
  } catch (Error& error) {
    throw error.file(path);
  }
}

void write(const EditOptions& options, const InputFile& file, const std::string& target, const gguf::Edit& edit, bool in_place) {
  if (in_place) return gguf::edit_in_place(options.file, edit);
  ProgressBar bar;
  gguf::edit_by_copy(file, target, edit, options.force ? OutputFile::Overwrite::kAllow : OutputFile::Overwrite::kRefuse, bar);
}

// What doctor would find in the file afterwards and does not find now. What breaks it is refused unless it is forced.
void check_edit(const EditOptions& options, const gguf::Header& header, const Metadata& edited) {
  std::string breaks;
  for (const Symptom& symptom : symptoms_of_edit(options.file, header, edited)) {
    const std::string text = (symptom.where.empty() ? "" : symptom.where + ": ") + symptom.message;
    if (symptom.severity == Severity::kBroken && !options.force) {
      breaks += (breaks.empty() ? "" : "; ") + text;
    } else if (symptom.severity != Severity::kNote) {
      print_warning(printable(text, kShownBytes));
    }
  }
  if (!breaks.empty()) {
    throw Error(ErrorKind::kUsage, "the edit would break the file: " + printable(breaks, kShownBytes) + " (--force does it all the same)")
        .file(options.file);
  }
}

int run_edit(const EditOptions& options) {
  if (options.set.empty() && options.remove.empty() && options.chat_template.empty()) {
    throw Error(ErrorKind::kUsage, "nothing to change; give --set, --remove or --template");
  }
  if (!options.dry_run && gguf::restore_header(options.file)) print_warning("an edit was interrupted; its old header was put back first");
  const InputFile file(options.file);
  const gguf::Header header = gguf::read_header(file, gguf::ForeignTypes::kList);
  require_first_shard(options.file, header);
  std::vector<std::string> notes;
  const Metadata edited = edited_metadata(header.metadata, {options.set, options.remove, options.chat_template}, notes);
  const gguf::Edit edit = gguf::plan_edit(header, edited);
  const std::string target = options.output.empty() ? options.file : options.output;
  const bool in_place = edit.in_place && options.output.empty();
  std::clog << "quern: reading " << printable(options.file) << '\n' << "quern: writing " << printable(target) << '\n';
  for (const std::string& note : notes) std::clog << "quern: note: " << note << '\n';
  check_edit(options, header, edited);
  const uint64_t bytes =
      in_place ? edit.header.size() : edit.header.size() + file.size_bytes() - std::min(file.size_bytes(), header.data_offset);
  if (!in_place && options.output.empty() && !options.force) {
    throw Error(ErrorKind::kUsage, "the header has no room for " + std::to_string(edit.missing_bytes) +
                                       " bytes more; --force writes the file anew (" + format_size(bytes) + "), -o another one")
        .file(options.file);
  }
  if (!options.dry_run) write(options, file, target, edit, in_place);
  print_result(options, target, in_place ? "in place" : "by a copy", bytes);
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
  verb->add_flag("--force", options->force, "replace files, FILE too; allow what breaks it")->group("Run");
  verb->add_flag("--json", options->json, "results as JSON on stdout")->group("Run");
  verb->callback([options, &context] { context.command = [options] { return run_edit(*options); }; });
}

}  // namespace quern::cli
