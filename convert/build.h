#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "convert/convert.h"
#include "convert/plan/calibration.h"
#include "convert/plan/plan.h"
#include "convert/plan/plan_options.h"
#include "formats/base/problems.h"
#include "formats/base/progress.h"
#include "formats/model/model_source.h"
#include "quantize/feedback/feedback_encoder.h"

namespace quern {

// A build from the path of a model to finished files: open, match what was measured of its inputs, plan, run.

// Where error feedback of a build gets its statistics: from a folder, or from a model that runs over a text while it is built. The second
// needs the runtime, which this library does not know (verify/calibrate/feedback.h makes both); so a build is handed this interface.
class BuildFeedback {
 public:
  virtual ~BuildFeedback() = default;

  // For one reading of the model, or with follows() for one output. Throws when the statistics cannot be had.
  virtual std::unique_ptr<FeedbackEncoder> open() = 0;

  // True when the statistics follow one output, whose types they must be told before it is made (follow); outputs are then made one after
  // the other, each with what was opened for it. types: one per tensor of the model. importance: of the build; outlives the encoding.
  virtual bool follows() const noexcept = 0;
  virtual void follow(std::vector<DType> types, const Importance* importance, Effort effort) = 0;

  // What is done with which text, for the notes of the plan; empty when there is nothing to say.
  virtual std::string note() const = 0;

  // Shows in `progress`, which outlives the build, what is being done for statistics.
  virtual void tell(Progress& progress) noexcept = 0;
};

struct BuildOptions {
  std::filesystem::path model;
  ModelOptions about;                                                          // what the checkpoint does not say itself
  PlanOptions plan;                                                            // the importance matrix is read from plan.imatrix
  bool strict = false;                                                         // an importance matrix with serious gaps is refused
  std::function<std::unique_ptr<BuildFeedback>(const ModelSource&)> feedback;  // empty: no error feedback
};

// A model that is ready to be built. Everything in it points into the rest, so it stays together; source is first and goes last.
struct OpenedBuild {
  std::unique_ptr<ModelSource> source;
  std::unique_ptr<BuildFeedback> feedback;  // opens the statistics of calibration; nullptr without error feedback
  Calibration calibration;                  // what is doubtful about its importance stands in findings() there
  std::optional<Plan> plan;                 // empty when the problems left none
  std::vector<Problem> problems;            // with any, the plan must not be run
};

// Opens the model and makes the plan. What is wrong with the options and with the model is collected in the result; only an interrupt and
// mistakes of our own are thrown. Reads no tensor data.
OpenedBuild open_build(const BuildOptions& options);

// The same for a plan that was saved (convert/plan/plan_json.h), with the model, the importance matrix and the statistics at the paths that
// it holds. part: one of several is to be made, so the outputs need no room here. It is a problem when the model or what was measured of it
// is not what the plan was made from.
OpenedBuild open_planned(const Plan& plan, bool strict, bool part);

// Makes outputs of the opened build: the plan that it has, or a part of its outputs. All come from one reading of the model, unless the
// feedback follows them one by one.
ConvertReport run_build(OpenedBuild& opened, const Plan& plan, Progress& progress);

}  // namespace quern
