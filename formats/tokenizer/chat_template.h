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
// first source that exists: `chosen`, chat_template.jinja, the templates of tokenizer_config.json, chat_template.json; to all but the first
// come those of additional_chat_templates/*.jinja. Byte order marks and CRLF are dropped as Jinja drops them, with a note; notes also say
// that there is no default template, and that a source which does not count says something else. Throws kFormat, naming the file, for texts
// that are no templates (template_text.h).
void set_chat_template(const ModelFolder& folder, const std::optional<std::filesystem::path>& chosen,
                       const std::vector<ChatTemplate>& configured, Metadata& metadata, std::vector<std::string>& notes);

}  // namespace quern
