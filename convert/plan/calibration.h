#pragma once

#include <filesystem>
#include <memory>

#include "convert/plan/plan.h"
#include "formats/statistics/importance.h"
#include "quantize/feedback/feedback_encoder.h"

namespace quern {

// What was measured of the model's inputs and steers the encoders. Empty: all columns of a weight are worth the same.
struct Calibration {
  Importance importance;
  std::unique_ptr<FeedbackEncoder> feedback;  // nullptr: none
};

// Reads an importance matrix and matches it with the model, which must outlive the result; an empty path gives none. What is wrong with
// it stands in Importance::findings(); strict: serious findings are thrown (Importance::require_sound).
Importance load_importance(const std::filesystem::path& imatrix, bool strict, const ModelSource& source);

// Throws kUsage when a plan was made with another importance matrix or other statistics than these, or with none.
void check_calibration(const Plan& plan, const Calibration& calibration);

// Steps of make_plan. Keys that llama-quantize writes too, and quern.imatrix.sha256, for an output in which any tensor is encoded
// with importance: "quantize.imatrix.file", ".dataset", ".entries_count", ".chunks_count".
void set_imatrix_keys(const Plan& plan, const Importance& importance, PlannedOutput& output);
// "quern.feedback.mode", ".text", ".text_sha256", ".tokens" for an output in which any tensor is encoded with error feedback, and
// ".statistics_sha256" when the statistics are a folder. Those that are collected while they are used are taken to be for all tensors.
void set_feedback_keys(const Plan& plan, FeedbackEncoder& feedback, PlannedOutput& output);
// Notes the tensors of an output whose type loses far more than others when nothing is known about their inputs, and has none:
// the types for which llama-quantize refuses to work.
void note_blind_types(const ModelSource& source, const Calibration& calibration, const PlannedOutput& output, Plan& plan);

}  // namespace quern
