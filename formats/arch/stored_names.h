#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/arch/descriptor.h"

namespace quern {

// How the names of a checkpoint become those that transformers gives to the weights of this class: wrappers (PEFT, torch.compile, DDP,
// FSDP, the text part of a vision model) put components in front of names and between them, and a bare base model lacks the first.
struct NameChange {
  std::string from;     // a prefix of stored names, with its dot; may be empty
  std::string to;       // what stands in its place
  bool unwrap = false;  // components of torch.compile and FSDP are taken out, wherever they are

  // In what `to` is put before, where `from` is empty: names that begin with one of these components.
  std::vector<std::string> roots;

  std::string operator()(std::string_view stored) const;
  std::string describe() const;  // "stored names begin with 'module.', which is taken off"
};

// The change after which the names are those of `expected`, which are rules that saw no tensor. Empty where none is needed, or where more
// than one would do, or where two names would become one.
std::optional<NameChange> find_name_change(std::span<const std::string> stored, const ArchRules& expected);

}  // namespace quern
