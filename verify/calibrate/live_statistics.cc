#include "verify/calibrate/live_statistics.h"

#include <tbb/task_arena.h>

#include <algorithm>

#include "formats/arch/stems.h"
#include "formats/base/error.h"
#include "formats/base/progress.h"
#include "quantize/feedback/feedback.h"
#include "runtime/observe/moment_collector.h"
#include "runtime/observe/row_log.h"

// Questions come from the threads that encode. Whoever finds the answer in the table takes it; whoever does not takes the work lock and
// runs the next layer, until the answer is there. So layers run in order, one at a time, each round completes one, and a question ends with
// its layer at the latest. The thread that runs a layer does so in isolation: waiting inside it might otherwise begin to encode something
// else, which would wait for the lock that this very thread holds.
//
// In sequential mode the original's pass of a layer logs its inputs and its routing. Then the build runs the layer once per input, with
// what comes before that input encoded, and the rows of the build are paired with those of the log. The encoder asks here again meanwhile,
// but only for inputs that are finished, because no weight counts as encoded before its own input is; so these questions find their answer
// without the work lock. A layer counts as complete before it is run the last time, which carries the states on: weights whose input never
// came are answered with nothing then, and nobody waits for them.
//
// A layer is forgotten when the one after it begins. Its files belong to whoever still holds their statistics and go with the last of them,
// so disk holds a layer or two whatever the size of the model.

namespace quern {

// What the original's pass leaves: inputs in the order in which they were first seen, the rows of a slice in the order of the calls.
struct LiveStatistics::Layer {
  struct Input {
    std::vector<std::string> weights;
    bool routed = false;
    std::map<int64_t, std::vector<size_t>> rows;  // per slice, numbers in the log
  };

  explicit Layer(bool in_file) : log(in_file) {}

  std::vector<Input> inputs;
  RowLog log;
  std::vector<int32_t> experts;
  std::vector<float> expert_weights;
};

class LiveStatistics::Original final : public ActivationObserver {
 public:
  Original(std::function<bool(std::string_view)> wanted, ActivationObserver* also) : wanted_(std::move(wanted)), also_(also) {}

  void observe(const ObservedInput& input) override {
    if (also_ != nullptr) also_->observe(input);
    if (layer_ == nullptr) return collector_->observe(input);
    if (std::none_of(input.weights.begin(), input.weights.end(), wanted_)) return;
    auto found = std::ranges::find_if(layer_->inputs, [&](const Layer::Input& known) { return known.weights.front() == input.weights[0]; });
    if (found == layer_->inputs.end()) {
      layer_->inputs.push_back({{input.weights.begin(), input.weights.end()}, !input.shares.empty(), {}});
      found = layer_->inputs.end() - 1;
    }
    found->rows[input.slice].push_back(layer_->log.add(*input.rows));
  }

  // Inputs are kept from here on, or their moments are taken.
  void keep_in(Layer& layer) noexcept { layer_ = &layer; }
  void take_moments(MomentCollector& collector) noexcept {
    layer_ = nullptr;
    collector_ = &collector;
  }

 private:
  std::function<bool(std::string_view)> wanted_;
  ActivationObserver* also_;
  Layer* layer_ = nullptr;
  MomentCollector* collector_ = nullptr;
};

namespace {

constexpr int64_t kNoLayer = -1;

void copy_states(const TokenStore& from, const std::function<void(int64_t, int64_t, const float*)>& write) {
  std::vector<float> rows;
  for (int64_t row = 0; row < from.n_rows(); row += kQueryTile) {
    const int64_t n = std::min(kQueryTile, from.n_rows() - row);
    rows.resize(static_cast<size_t>(n * from.width()));
    from.read(row, n, rows.data());
    write(row, n, rows.data());
  }
}

}  // namespace

LiveStatistics::LiveStatistics(const ModelSource& source, Options options, StatisticsRecord record)
    : source_(source),
      options_(std::move(options)),
      record_(std::move(record)),
      sequential_(record_.mode == kSequentialMode),
      observer_(std::make_unique<Original>([this](std::string_view weight) { return wanted(weight); }, options_.also_observes)) {
  EvalOptions eval = options_.eval;
  // Blocks that are written follow from these statistics, so they must not depend on what the CPU has.
  if (eval.arithmetic == Arithmetic::kTiles) eval.arithmetic = options_.eval.arithmetic = Arithmetic::kFloat;
  eval.observer = observer_.get();
  if (sequential_) {  // two models and the blocks of a layer
    cache_bytes_ = eval.memory_bytes / 4;
    eval.memory_bytes = options_.eval.memory_bytes = eval.memory_bytes / 8 * 3;
  }
  original_ = std::make_unique<Evaluator>(source, eval);
  n_layers_ = original_->hparams().n_layers;
  forgets_ = !options_.keep && std::ranges::is_sorted(source.tensors(), {}, [&](const LogicalTensor& t) {
    return t.name.starts_with("output") ? n_layers_ : layer_of(t.name);  // norms of the output may stand on either side of it
  });
  encoded_.resize(source.tensors().size());
}

LiveStatistics::~LiveStatistics() {
  if (options_.keep) return;
  writer_.reset();
  by_weight_.clear();
  std::error_code ignored;
  std::filesystem::remove_all(options_.folder, ignored);
}

void LiveStatistics::follow(std::vector<DType> types, const TensorEncoder& encoder) {
  QUERN_CHECK(types.size() == source_.tensors().size());
  types_ = std::move(types);
  encoder_ = &encoder;
}

int64_t LiveStatistics::layer_of(std::string_view weight) const {
  if (weight == "output.weight") return n_layers_;
  const int64_t layer = split_block_name(weight).layer;
  return layer >= 0 && layer < n_layers_ ? layer : kNoLayer;
}

// Matrices that block types can hold. The embedding is none, also where it is the output matrix: what comes of it is needed before
// anything is known.
bool LiveStatistics::wanted(std::string_view weight) const {
  const LogicalTensor* tensor = original_->index().find(weight);
  if (tensor == nullptr || layer_of(weight) == kNoLayer) return false;
  if (tensor->shape.rank() < 2 || tensor->shape.row_length() % 32 != 0) return false;
  return !sequential_ || has_feedback(weight);
}

bool LiveStatistics::has_feedback(std::string_view weight) const {
  const size_t i = original_->index().number(*original_->index().find(weight));
  return source_.tensors()[i].keep != Keep::kInteger && has_feedback_encoder(types_[i]) && !source_.can_copy(i, types_[i]);
}

std::optional<std::shared_ptr<const StatisticsInput>> LiveStatistics::known(std::string_view weight, int64_t layer) {
  const std::lock_guard lock(known_mutex_);
  const auto found = by_weight_.find(weight);
  if (found != by_weight_.end()) return found->second;
  if (layer != kNoLayer && layer < n_forgotten_)
    throw Error(ErrorKind::kInternal, "statistics were asked for too late").tensor(std::string(weight));
  if (layer < n_complete_) return std::shared_ptr<const StatisticsInput>();
  return std::nullopt;
}

std::shared_ptr<const StatisticsInput> LiveStatistics::find(std::string_view weight) {
  const int64_t layer = layer_of(weight);
  for (;;) {
    if (auto found = known(weight, layer)) return *found;
    const std::lock_guard lock(work_mutex_);
    if (auto found = known(weight, layer)) return *found;
    // Isolated, so that this thread does not begin something else that waits for the lock.
    tbb::this_task_arena::isolate([&] { collect_layer(); });
  }
}

void LiveStatistics::run_rest() {
  const std::lock_guard lock(work_mutex_);
  while (next_layer_ <= n_layers_) collect_layer();
  if (options_.progress != nullptr) options_.progress->end();
}

void LiveStatistics::finish() { writer_->finish(record_); }

void LiveStatistics::add_finished(std::vector<StatisticsWriter::Finished> finished) {
  const std::lock_guard lock(known_mutex_);
  for (StatisticsWriter::Finished& one : finished) {
    std::shared_ptr<const StatisticsInput> input = one.input;
    if (forgets_) {
      input = std::shared_ptr<const StatisticsInput>(one.input.get(), [owner = one.input](const StatisticsInput* last) {
        std::error_code ignored;
        std::filesystem::remove(last->file, ignored);
      });
    }
    for (const std::string& weight : one.weights) by_weight_.emplace(weight, input);
  }
}

void LiveStatistics::forget_layer(int64_t layer) {
  if (!forgets_) return;
  const std::lock_guard lock(known_mutex_);
  std::erase_if(by_weight_, [&](const auto& entry) { return layer_of(entry.first) == layer; });
  n_forgotten_ = layer + 1;
}

void LiveStatistics::begin() {
  if (options_.progress != nullptr) options_.progress->begin("statistics", static_cast<uint64_t>(n_layers_ + 1));
  writer_ = std::make_unique<StatisticsWriter>(options_.folder, options_.overwrite);
  original_->start(options_.chunks);
  original_->embed();
  if (!sequential_) return;
  QUERN_CHECK(encoder_ != nullptr);
  for (size_t i = 0; i < encoded_.size(); ++i) encoded_[i] = layer_of(source_.tensors()[i].name) == kNoLayer;
  std::vector<std::optional<DType>> types(types_.begin(), types_.end());
  const SimulatedSource build(source_, types, *encoder_, nullptr);
  Evaluator evaluator(build, options_.eval);
  evaluator.start(options_.chunks);
  evaluator.embed();
  build_states_ = TokenStore(evaluator.n_rows(), evaluator.states().width(), evaluator.plan(options_.chunks).spill);
  copy_states(evaluator.states(), [&](int64_t row, int64_t n, const float* rows) { build_states_.write(row, n, rows); });
}

void LiveStatistics::collect_layer() {
  throw_if_interrupted();
  QUERN_CHECK(next_layer_ <= n_layers_);
  if (next_layer_ == 0) begin();
  forget_layer(next_layer_ - 1);
  const std::string step =
      next_layer_ == n_layers_ ? "output" : "layer " + std::to_string(next_layer_ + 1) + "/" + std::to_string(n_layers_);
  if (options_.progress != nullptr) options_.progress->step(step);
  if (steps_ != nullptr) steps_->step("statistics of " + step);
  if (sequential_) {
    Layer layer(original_->plan(options_.chunks).spill);
    collect_in_sequence(layer);
  } else {
    MomentCollector collector(*writer_, [this](std::string_view weight) { return wanted(weight); });
    observer_->take_moments(collector);
    run_original({});
    add_finished(collector.finish());
    const std::lock_guard lock(known_mutex_);
    n_complete_ = next_layer_ + 1;
  }
  ++next_layer_;
  if (options_.progress != nullptr) options_.progress->advance(1);
  if (steps_ != nullptr) steps_->step("");
}

void LiveStatistics::run_original(const RoutingObserver& routing) {
  if (next_layer_ == n_layers_) return original_->finish();
  original_->run_layers(next_layer_, next_layer_ + 1, no_progress(), routing);
}

void LiveStatistics::collect_in_sequence(Layer& layer) {
  cache_ = std::make_unique<BlockCache>(cache_bytes_);
  observer_->keep_in(layer);
  run_original([&](int64_t, Routing& routing) {
    layer.experts.assign(routing.experts.begin(), routing.experts.end());
    layer.expert_weights.assign(routing.weights.begin(), routing.weights.end());
  });
  // What has no feedback is encoded from the start.
  for (size_t i = 0; i < encoded_.size(); ++i) {
    const std::string& name = source_.tensors()[i].name;
    if (layer_of(name) == next_layer_ && !wanted(name)) encoded_[i] = true;
  }
  for (size_t k = 0; k < layer.inputs.size(); ++k) collect_input(layer, k);
  {
    const std::lock_guard lock(known_mutex_);
    n_complete_ = next_layer_ + 1;
  }
  if (next_layer_ == n_layers_) return;  // nothing comes after it
  for (size_t i = 0; i < encoded_.size(); ++i) encoded_[i] = encoded_[i] || layer_of(source_.tensors()[i].name) == next_layer_;
  run_build(nullptr, {}, true);
  cache_.reset();
}

void LiveStatistics::collect_input(const Layer& layer, size_t number) {
  const Layer::Input& input = layer.inputs[number];
  std::map<int64_t, size_t> position;
  const auto is_of_input = [&](std::string_view weight) { return std::ranges::find(input.weights, weight) != input.weights.end(); };
  MomentCollector collector(*writer_, is_of_input, [&](const ObservedInput& seen) {
    PackedRows rows = layer.log.get(input.rows.at(seen.slice).at(position[seen.slice]++));
    QUERN_CHECK(rows.n_rows() == seen.rows->n_rows());
    return rows;
  });
  run_build(
      &collector,
      [&](int64_t, Routing& routing) {
        std::ranges::copy(layer.experts, routing.experts.begin());
        std::ranges::copy(layer.expert_weights, routing.weights.begin());
        routing.run_experts = input.routed;
      },
      false);
  add_finished(collector.finish());
  for (const std::string& weight : input.weights) {
    const LogicalTensor* tensor = original_->index().find(weight);
    if (tensor != nullptr) encoded_[original_->index().number(*tensor)] = true;
  }
}

void LiveStatistics::run_build(ActivationObserver* observer, const RoutingObserver& route, bool keep_states) {
  std::vector<std::optional<DType>> types(types_.size());
  for (size_t i = 0; i < types.size(); ++i) {
    if (encoded_[i]) types[i] = types_[i];
  }
  const SimulatedSource build(source_, types, *encoder_, cache_.get());
  EvalOptions eval = options_.eval;
  eval.observer = observer;
  Evaluator evaluator(build, eval);
  evaluator.start(options_.chunks);
  copy_states(build_states_, [&](int64_t row, int64_t n, const float* rows) { evaluator.set_states(row, n, rows); });
  if (next_layer_ == n_layers_) return evaluator.finish();
  evaluator.run_layers(next_layer_, next_layer_ + 1, no_progress(), route);
  if (!keep_states) return;
  copy_states(evaluator.states(), [&](int64_t row, int64_t n, const float* rows) { build_states_.write(row, n, rows); });
}

}  // namespace quern
