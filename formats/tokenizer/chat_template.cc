#include "formats/tokenizer/chat_template.h"

#include <algorithm>

#include "formats/base/error.h"
#include "formats/base/file.h"

namespace quern {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxTemplateBytes = uint64_t{4} << 20;

constexpr const char* kTemplateName = "chat_template.jinja";

std::vector<ChatTemplate> read_jinja(const ModelFolder& folder) {
  std::vector<ChatTemplate> templates{{"default", folder.read_text(kTemplateName, kMaxTemplateBytes)}};
  const std::string more = "additional_chat_templates";
  for (const std::string& name : folder.names(more)) {
    const fs::path path(name);
    if (path.extension() == ".jinja") templates.push_back({path.stem().string(), folder.read_text(more + "/" + name, kMaxTemplateBytes)});
  }
  // By name: the names of the files with their endings sort otherwise.
  std::sort(templates.begin() + 1, templates.end(), [](const ChatTemplate& a, const ChatTemplate& b) { return a.name < b.name; });
  return templates;
}

std::vector<ChatTemplate> find_templates(const ModelFolder& folder, const std::optional<fs::path>& chosen,
                                         const std::vector<ChatTemplate>& configured) {
  if (chosen) return {{"default", read_text_file(*chosen, kMaxTemplateBytes)}};
  if (folder.has(kTemplateName)) return read_jinja(folder);
  if (!configured.empty()) return configured;
  constexpr const char* kJson = "chat_template.json";
  if (!folder.has(kJson)) return {};
  try {
    return parse_chat_templates(folder.read_text(kJson, kMaxTemplateBytes));
  } catch (Error& error) {
    error.file((folder.path() / kJson).string());
    throw;
  }
}

// Names become part of a metadata key.
std::string key_name(std::string name) {
  for (char& c : name) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (!plain) c = '_';
  }
  return name;
}

}  // namespace

void set_chat_template(const ModelFolder& folder, const std::optional<fs::path>& chosen, const std::vector<ChatTemplate>& configured,
                       Metadata& metadata, std::vector<std::string>& notes) {
  const std::vector<ChatTemplate> templates = find_templates(folder, chosen, configured);
  std::vector<std::string> names;
  for (const ChatTemplate& entry : templates) {
    const std::string name = key_name(entry.name);
    if (name == "default") {
      metadata.set("tokenizer.chat_template", entry.text);
    } else if (!name.empty()) {
      metadata.set("tokenizer.chat_template." + name, entry.text);
      if (std::ranges::find(names, name) == names.end()) names.push_back(name);
    }
  }
  if (!names.empty()) metadata.set("tokenizer.chat_templates", std::move(names));
  if (metadata.find("tokenizer.chat_template") == nullptr) {
    notes.emplace_back("the checkpoint has no chat template (DeepSeek-V4 ships none); --chat-template FILE adds one");
  }
}

}  // namespace quern
