#include "formats/tokenizer/chat_template.h"

#include <algorithm>

#include "formats/base/error.h"
#include "formats/base/utf8.h"
#include "formats/tokenizer/template_text.h"

// Up to four files say how to talk to a model. The sources are lists of named templates, in the order in which transformers believes them;
// the first that is not empty counts, and what the others say is only compared with it. A text that no renderer could use is refused here,
// since the engine would say so only when somebody chats.

namespace quern {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxTemplateBytes = uint64_t{4} << 20;
constexpr const char* kJinja = "chat_template.jinja";
constexpr const char* kConfig = "tokenizer_config.json";
constexpr const char* kJson = "chat_template.json";
constexpr const char* kMore = "additional_chat_templates";

struct Source {
  std::string file;  // name in the folder
  std::vector<ChatTemplate> templates;
};

const ChatTemplate* find_default(const Source& source) {
  const auto found = std::ranges::find(source.templates, "default", &ChatTemplate::name);
  return found == source.templates.end() ? nullptr : &*found;
}

Source read_json(const ModelFolder& folder) {
  try {
    return {kJson, parse_chat_templates(folder.read_text(kJson, kMaxTemplateBytes))};
  } catch (Error& error) {
    error.file((folder.path() / kJson).string());
    throw;
  }
}

// All that the folder has, the surest first.
std::vector<Source> read_sources(const ModelFolder& folder, const std::vector<ChatTemplate>& configured) {
  std::vector<Source> sources;
  if (folder.has(kJinja)) sources.push_back({kJinja, {{"default", folder.read_text(kJinja, kMaxTemplateBytes)}}});
  if (!configured.empty()) sources.push_back({kConfig, configured});
  if (folder.has(kJson)) sources.push_back(read_json(folder));
  for (Source& source : sources) std::erase_if(source.templates, [](const ChatTemplate& entry) { return entry.text.empty(); });
  std::erase_if(sources, [](const Source& source) { return source.templates.empty(); });
  return sources;
}

// The templates of additional_chat_templates/, each with its file, by name: the names of the files with their endings sort otherwise.
std::vector<Source> read_more(const ModelFolder& folder) {
  std::vector<Source> sources;
  for (const std::string& name : folder.names(kMore)) {
    const fs::path path(name);
    const std::string file = std::string(kMore) + "/" + name;
    if (path.extension() == ".jinja") sources.push_back({file, {{path.stem().string(), folder.read_text(file, kMaxTemplateBytes)}}});
  }
  std::ranges::sort(sources, {}, [](const Source& source) { return source.templates.front().name; });
  return sources;
}

void note_other_defaults(const std::vector<Source>& sources, std::vector<std::string>& notes) {
  const ChatTemplate* counts = find_default(sources.front());
  if (counts == nullptr) return;
  const std::string text = normal_template(counts->text);
  for (size_t i = 1; i < sources.size(); ++i) {
    const ChatTemplate* other = find_default(sources[i]);
    if (other != nullptr && normal_template(other->text) != text) {
      notes.push_back(sources[i].file + " has another chat template than " + sources.front().file + ", which counts");
    }
  }
}

size_t line_of(std::string_view text, size_t at) {
  return 1 + static_cast<size_t>(std::count(text.begin(), text.begin() + static_cast<ptrdiff_t>(at), '\n'));
}

void check(const ChatTemplate& entry, const fs::path& file, bool is_chosen) {
  const std::optional<TemplateFault> fault = find_template_fault(entry.text);
  if (!fault) return;
  const std::string name = entry.name == "default" ? "" : " '" + printable(entry.name, 40) + "'";
  throw Error(ErrorKind::kFormat, "chat template" + name + ", line " + std::to_string(line_of(entry.text, fault->at)) + ": " +
                                      fault->message + (is_chosen ? "" : "; --chat-template FILE gives another"))
      .file(file.string());
}

std::string usable_text(const ChatTemplate& entry, const std::string& file, std::vector<std::string>& notes) {
  std::string text = normal_template(entry.text);
  if (text != entry.text) {
    const bool marked = entry.text.starts_with(kUtf8Mark);
    notes.push_back(file + ": " + (marked ? "the byte order mark is" : "carriage returns are") + " left out of the chat template");
  }
  return text;
}

// Names become part of a metadata key.
std::string key_name(std::string name) {
  for (char& c : name) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (!plain) c = '_';
  }
  return name;
}

class TemplateKeys {
 public:
  TemplateKeys(const fs::path& folder, Metadata& metadata, std::vector<std::string>& notes)
      : folder_(folder), metadata_(metadata), notes_(notes) {}

  // Of two with one name the later counts.
  void add(const Source& source, bool is_chosen) {
    for (const ChatTemplate& entry : source.templates) {
      const std::string name = key_name(entry.name);
      if (name.empty()) continue;
      check(entry, folder_ / source.file, is_chosen);
      const std::string text = usable_text(entry, source.file, notes_);
      metadata_.set(name == "default" ? "tokenizer.chat_template" : "tokenizer.chat_template." + name, text);
      if (name != "default" && std::ranges::find(names_, name) == names_.end()) names_.push_back(name);
    }
  }

  void finish() {
    std::string list;
    for (const std::string& name : names_) list += (list.empty() ? "" : ", ") + name;
    if (!names_.empty()) metadata_.set("tokenizer.chat_templates", std::move(names_));
    if (metadata_.find("tokenizer.chat_template") != nullptr) return;
    notes_.push_back(list.empty() ? "the checkpoint has no chat template; --chat-template FILE adds one"
                                  : "the chat templates are named " + list +
                                        " and none is the default, which engines take unasked; --chat-template FILE adds one");
  }

 private:
  const fs::path folder_;
  Metadata& metadata_;
  std::vector<std::string>& notes_;
  std::vector<std::string> names_;
};

}  // namespace

void set_chat_template(const ModelFolder& folder, const std::optional<fs::path>& chosen, const std::vector<ChatTemplate>& configured,
                       Metadata& metadata, std::vector<std::string>& notes) {
  if (chosen) {
    TemplateKeys keys(chosen->parent_path(), metadata, notes);
    const std::string name = chosen->filename().string();
    keys.add({name, {{"default", ModelFolder(chosen->parent_path()).read_text(name, kMaxTemplateBytes)}}}, true);
    return keys.finish();
  }
  TemplateKeys keys(folder.path(), metadata, notes);
  const std::vector<Source> sources = read_sources(folder, configured);
  if (!sources.empty()) {
    note_other_defaults(sources, notes);
    keys.add(sources.front(), false);
  }
  for (const Source& source : read_more(folder)) keys.add(source, false);
  keys.finish();
}

}  // namespace quern
