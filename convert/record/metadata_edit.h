#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "formats/gguf/metadata.h"

namespace quern {

// Changes of metadata as people write them; `quern edit`.
struct MetadataEdits {
  std::vector<std::string> set;     // "KEY=VALUE" or "KEY:TYPE=VALUE", TYPE as "u32", "str[]"; strings as they are, other values as JSON
  std::vector<std::string> remove;  // keys
  std::filesystem::path chat_template;  // a file that becomes tokenizer.chat_template; empty: none
};

// Without a type a value has that of the key's old one, or what it looks like. A key to be removed that is not there becomes a line of
// `notes`. Throws kUsage for a value that is not of its type, and keys that say how the file is laid out: another value makes it
// unreadable.
Metadata edited_metadata(const Metadata& old, const MetadataEdits& edits, std::vector<std::string>& notes);

}  // namespace quern
