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

namespace quern::cli {
namespace {

using nlohmann::json;

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

int run_edit(const EditOptions& options) {
  if (options.set.empty() && options.remove.empty() && options.chat_template.empty()) {
    throw Error(ErrorKind::kUsage, "nothing to change; give --set, --remove or --template");
  }
  if (!options.dry_run && gguf::restore_header(options.file)) print_warning("an edit was interrupted; its old header was put back first");
  const InputFile file(options.file);
  const gguf::Header header = gguf::read_header(file, gguf::ForeignTypes::kList);
  const gguf::Edit edit = gguf::plan_edit(header, edited_metadata(header.metadata, {options.set, options.remove, options.chat_template}));
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
