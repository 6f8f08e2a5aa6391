#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "verify/records/manifest.h"

namespace quern {

// How builds were made and how that is checked, in the words that the page and the model card share.

// The error feedback that a build was encoded with.
struct FeedbackFacts {
  std::string mode;  // kOriginalMode or kSequentialMode
  std::string text;  // name of the calibration text
  int64_t n_tokens = 0;
  bool operator==(const FeedbackFacts&) const = default;
};
std::optional<FeedbackFacts> feedback_of(const Metadata& settings);

// Builds, by their labels, that were encoded alike with error feedback.
struct FedBuilds {
  FeedbackFacts feedback;
  std::vector<std::string> labels;
};
// Adds a build to those of its kind; one without error feedback to none.
void add_fed_build(const std::string& label, const std::optional<FeedbackFacts>& feedback, std::vector<FedBuilds>& kinds);

// "IQ2_XXS and Q4_K_M are encoded with error feedback: ..."; text is the name of the calibration text, ready for the place where it will
// stand, as the labels are.
std::string feedback_sentence(const FedBuilds& builds, const std::string& text);

// "a", "a and b", "a, b and c".
std::string listed(const std::vector<std::string>& items);

// A text as one word of a POSIX shell's command line.
std::string shell_word(std::string_view text);

// Commands that check a published folder, in that folder: whether everything is as it was published, and whether it is what it says.
std::vector<std::string> integrity_commands(bool is_signed);
std::string derivation_command(const std::vector<FedBuilds>& fed);  // which need their text

}  // namespace quern
