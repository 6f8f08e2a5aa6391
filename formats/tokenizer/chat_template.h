#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "formats/base/model_folder.h"
#include "formats/gguf/metadata.h"
#include "formats/tokenizer/tokenizer_json.h"

namespace quern {

// Writes tokenizer.chat_template, and for further named templates tokenizer.chat_template.NAME and tokenizer.chat_templates. The
// first source that exists: `chosen`, chat_template.jinja (with additional_chat_templates/*.jinja), the templates of
// tokenizer_config.json, chat_template.json. A note says that there is none.
void set_chat_template(const ModelFolder& folder, const std::optional<std::filesystem::path>& chosen,
                       const std::vector<ChatTemplate>& configured, Metadata& metadata, std::vector<std::string>& notes);

}  // namespace quern
