#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "formats/gguf/metadata.h"
#include "verify/intact/symptom.h"

namespace quern {

// Parts of examine_metadata. Keys may have any type and any value there.

// Keys that llama.cpp reads: each must have the very type that it asks for, or it refuses the file. Every string must be UTF-8 and every
// number finite.
void examine_keys(const Metadata& metadata, const std::string& where, std::vector<Symptom>& symptoms);
// tokenizer.*: tokens, their types and scores, merges, the ids of special tokens.
void examine_vocabulary(const Metadata& metadata, const std::string& where, std::vector<Symptom>& symptoms);

// What is odd about a key that an edit adds: that nothing reads it, because it belongs to another architecture or is a known key's name
// with a slip. Empty for a key that is read, and for one that resembles nothing.
std::string unread_key(const Metadata& metadata, std::string_view key);

}  // namespace quern
