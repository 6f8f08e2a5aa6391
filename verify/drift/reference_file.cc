#include "verify/drift/reference_file.h"

#include <hdf5.h>

#include <algorithm>
#include <cmath>
#include <exception>
#include <limits>

#include "formats/base/error.h"
#include "formats/base/version.h"
#include "verify/drift/zstd_filter.h"

// Each row keeps its most probable tokens and two sums over the rest, from which compare_cut() derives what the rest can hide. The upper
// end is a small allocation: the mass of the tail is dealt out to the tokens that the tested model believes least, each getting at most
// what the least probable stored token has, because more would have made it one of the stored.
//
// libhdf5 is kept at arm's length. It crashes when it closes what it could not write, so such objects stay open when an exception passes,
// and also when the process ends. A file may claim anything: types, attributes and shapes are compared with what the schema says before
// anything is read, and counts have limits of their own, since parts of a dataset that were never written take no room in the file. Writing
// goes to the part file, and only then the name is taken, by the rules of every other output; times are left out, so the bytes are the same
// each time.

namespace quern {
namespace {

constexpr char kSchema[] = "quern.reference/1";
constexpr unsigned kZstdLevel = 9;
// Unwritten parts of a dataset take no room in the file, so that its size says nothing.
constexpr int64_t kMaxTokens = 1 << 24;
constexpr int64_t kMaxVocab = 1 << 22;
constexpr int64_t kMaxTop = 1 << 14;

// What becomes of an HDF5 object when an exception passes it. libhdf5 crashes when it closes what it could not write, so that stays open.
enum class OnError { kClose, kLeaveOpen };

// An HDF5 identifier that closes itself.
class Handle {
 public:
  Handle(hid_t id, herr_t (*close)(hid_t), const char* what, OnError on_error = OnError::kClose)
      : id_(id), close_(close), on_error_(on_error) {
    if (id < 0) throw Error(ErrorKind::kFormat, std::string("HDF5: cannot open or make ") + what);
  }
  Handle(Handle&& other) noexcept : id_(other.id_), close_(other.close_), on_error_(other.on_error_) { other.id_ = -1; }
  Handle& operator=(Handle&&) = delete;
  ~Handle() {
    if (id_ >= 0 && (on_error_ == OnError::kClose || std::uncaught_exceptions() == 0)) close_(id_);
  }
  operator hid_t() const noexcept { return id_; }

 private:
  hid_t id_;
  herr_t (*close_)(hid_t);
  OnError on_error_;
};

void check(herr_t status, const char* what) {
  if (status < 0) throw Error(ErrorKind::kIo, std::string("HDF5: cannot ") + what);
}

void prepare_library() {
  H5dont_atexit();                              // what was left open is not closed when the process ends either
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);  // errors are ours to report
  register_zstd_filter();
}

Handle make_dataset(hid_t file, const char* name, hid_t type, const std::vector<hsize_t>& shape, const std::vector<hsize_t>& chunk) {
  const Handle space(H5Screate_simple(static_cast<int>(shape.size()), shape.data(), nullptr), H5Sclose, "a data space");
  const Handle properties(H5Pcreate(H5P_DATASET_CREATE), H5Pclose, "dataset properties");
  check(H5Pset_obj_track_times(properties, false), "keep the time out");
  check(H5Pset_chunk(properties, static_cast<int>(chunk.size()), chunk.data()), "set chunks");
  check(H5Pset_shuffle(properties), "set the shuffle filter");
  const unsigned values[] = {kZstdLevel};
  check(H5Pset_filter(properties, static_cast<H5Z_filter_t>(kZstdFilter), H5Z_FLAG_MANDATORY, 1, values), "set the zstd filter");
  return Handle(H5Dcreate2(file, name, type, space, H5P_DEFAULT, properties, H5P_DEFAULT), H5Dclose, name, OnError::kLeaveOpen);
}

// Rows [first, first + n) of a dataset of rank 1 or 2.
template <typename Transfer>
void rows_transfer(hid_t dataset, hsize_t first, hsize_t n, hsize_t width, Transfer transfer) {
  const Handle space(H5Dget_space(dataset), H5Sclose, "a data space");
  const hsize_t start[] = {first, 0}, count[] = {n, width};
  check(H5Sselect_hyperslab(space, H5S_SELECT_SET, start, nullptr, count, nullptr), "select rows");
  const Handle memory(H5Screate_simple(H5Sget_simple_extent_ndims(space), count, nullptr), H5Sclose, "a data space");
  check(transfer(memory, space), "read or write rows");
}

void write_rows(hid_t dataset, hid_t type, hsize_t first, hsize_t n, hsize_t width, const void* data) {
  rows_transfer(dataset, first, n, width,
                [&](hid_t memory, hid_t file) { return H5Dwrite(dataset, type, memory, file, H5P_DEFAULT, data); });
}

void read_rows(hid_t dataset, hid_t type, hsize_t first, hsize_t n, hsize_t width, void* data) {
  rows_transfer(dataset, first, n, width,
                [&](hid_t memory, hid_t file) { return H5Dread(dataset, type, memory, file, H5P_DEFAULT, data); });
}

void write_integer(hid_t file, const char* name, int64_t value) {
  const Handle space(H5Screate(H5S_SCALAR), H5Sclose, "a data space");
  const Handle attribute(H5Acreate2(file, name, H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT), H5Aclose, name);
  check(H5Awrite(attribute, H5T_NATIVE_INT64, &value), "write an attribute");
}

void write_text(hid_t file, const char* name, const std::string& text) {
  const Handle space(H5Screate(H5S_SCALAR), H5Sclose, "a data space");
  const Handle type(H5Tcopy(H5T_C_S1), H5Tclose, "a type");
  check(H5Tset_size(type, text.size() + 1), "size a text");
  check(H5Tset_cset(type, H5T_CSET_UTF8), "set a character set");
  const Handle attribute(H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT), H5Aclose, name);
  check(H5Awrite(attribute, type, text.c_str()), "write an attribute");
}

// An attribute of one value; the library would fill a buffer with as many as there are.
Handle open_attribute(hid_t file, const char* name) {
  Handle attribute(H5Aopen(file, name, H5P_DEFAULT), H5Aclose, name);
  const Handle space(H5Aget_space(attribute), H5Sclose, "a data space");
  if (H5Sget_simple_extent_npoints(space) != 1)
    throw Error(ErrorKind::kFormat, std::string("HDF5: attribute '") + name + "' is not one value");
  return attribute;
}

// Numbers of HDF5 may have any number of bytes, and the library allocates them before it looks.
bool is_number(hid_t type, H5T_class_t type_class) { return H5Tget_class(type) == type_class && H5Tget_size(type) <= sizeof(int64_t); }

int64_t read_integer(hid_t file, const char* name) {
  const Handle attribute = open_attribute(file, name);
  const Handle type(H5Aget_type(attribute), H5Tclose, "a type");
  if (!is_number(type, H5T_INTEGER)) throw Error(ErrorKind::kFormat, std::string("HDF5: attribute '") + name + "' is not an integer");
  int64_t value = 0;
  check(H5Aread(attribute, H5T_NATIVE_INT64, &value), "read an attribute");
  return value;
}

std::string read_text(hid_t file, const char* name) {
  const Handle attribute = open_attribute(file, name);
  const Handle type(H5Aget_type(attribute), H5Tclose, "a type");
  const size_t size = H5Tget_size(type);
  if (H5Tget_class(type) != H5T_STRING || H5Tis_variable_str(type) != 0 || size > 4096)
    throw Error(ErrorKind::kFormat, "HDF5: attribute is not a short text");
  std::string text(size, '\0');
  check(H5Aread(attribute, type, text.data()), "read an attribute");
  return text.c_str();
}

// type_class: H5T_INTEGER or H5T_FLOAT.
Handle open_dataset(hid_t file, const char* name, H5T_class_t type_class, std::vector<hsize_t> shape) {
  Handle dataset(H5Dopen2(file, name, H5P_DEFAULT), H5Dclose, name);
  const Handle type(H5Dget_type(dataset), H5Tclose, "a type");
  if (!is_number(type, type_class)) throw Error(ErrorKind::kFormat, std::string("HDF5: dataset '") + name + "' has another type");
  const Handle space(H5Dget_space(dataset), H5Sclose, "a data space");
  std::vector<hsize_t> found(static_cast<size_t>(std::max(0, H5Sget_simple_extent_ndims(space))));
  H5Sget_simple_extent_dims(space, found.data(), nullptr);
  if (found != shape)
    throw Error(ErrorKind::kFormat, std::string("HDF5: dataset '") + name + "' has another shape than the attributes say");
  return dataset;
}

int64_t scored_rows(int64_t n_ctx) { return n_ctx - 1 - n_ctx / 2; }

}  // namespace

std::string why_no_distribution(const ReferenceRow& row, int64_t n_vocab, int32_t next_token) {
  // Logarithms are stored as float, which is off by 1e-6 of their size at most.
  constexpr double kTolerance = 1e-3;
  std::vector<bool> seen(static_cast<size_t>(n_vocab), false);
  double sum = row.tail_mass;
  for (size_t i = 0; i < row.ids.size(); ++i) {
    const int32_t id = row.ids[i];
    const auto log_prob = static_cast<double>(row.log_probs[i]);
    if (id < 0 || id >= n_vocab) return "token " + std::to_string(id) + " is outside the vocabulary";
    if (seen[static_cast<size_t>(id)]) return "token " + std::to_string(id) + " stands in it twice";
    seen[static_cast<size_t>(id)] = true;
    if (!(log_prob <= kTolerance)) return "the probability of token " + std::to_string(id) + " is no number of 0 to 1";
    if (i > 0 && row.log_probs[i] > row.log_probs[i - 1]) return "the tokens are not sorted by probability";
    if (id == next_token && !(std::abs(row.nll + log_prob) <= kTolerance)) return "it gives the next token two probabilities";
    sum += std::exp(log_prob);
  }
  if (!(row.tail_mass >= 0.0) || !(row.tail_sum <= 0.0) || !(row.nll >= -kTolerance) || !std::isfinite(row.tail_sum) ||
      !std::isfinite(row.nll))
    return "what it says of the other tokens are no probabilities";
  if (!(std::abs(sum - 1.0) <= kTolerance)) return "its probabilities add up to " + std::to_string(sum) + " and not to 1";
  return "";
}

ReferenceRow cut_row(std::span<const double> log_probs, int32_t next_token, int64_t n_top) {
  std::vector<int32_t> order(log_probs.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int32_t>(i);
  const auto at = [&](int32_t id) { return log_probs[static_cast<size_t>(id)]; };
  const auto better = [&](int32_t a, int32_t b) { return at(a) != at(b) ? at(a) > at(b) : a < b; };
  const auto n = static_cast<ptrdiff_t>(std::min<int64_t>(n_top, static_cast<int64_t>(order.size())));
  std::partial_sort(order.begin(), order.begin() + n, order.end(), better);
  ReferenceRow row;
  row.nll = -at(next_token);
  for (ptrdiff_t i = 0; i < n; ++i) {
    row.ids.push_back(order[static_cast<size_t>(i)]);
    row.log_probs.push_back(static_cast<float>(at(row.ids.back())));
  }
  for (auto i = static_cast<size_t>(n); i < order.size(); ++i) {
    const double p = std::exp(at(order[i]));
    row.tail_mass += p;
    if (p > 0.0) row.tail_sum += p * at(order[i]);
  }
  return row;
}

TokenDrift compare_cut(const ReferenceRow& row, std::span<const double> tested, int32_t next_token) {
  TokenDrift drift;
  drift.nll = -tested[static_cast<size_t>(next_token)];
  drift.nll_original = row.nll;
  drift.same_top = std::ranges::max_element(tested) - tested.begin() == row.ids.front();
  std::vector<bool> stored(tested.size(), false);
  for (size_t i = 0; i < row.ids.size(); ++i) {
    const auto id = static_cast<size_t>(row.ids[i]);
    const auto p = static_cast<double>(row.log_probs[i]);
    stored[id] = true;
    drift.kl += std::exp(p) * (p - tested[id]);
  }
  if (!(row.tail_mass > 0.0)) return drift;
  std::vector<double> tail;
  double tested_mass = 0.0;
  for (size_t id = 0; id < tested.size(); ++id) {
    if (stored[id]) continue;
    tail.push_back(tested[id]);
    tested_mass += std::exp(tested[id]);
  }
  const double lower = row.tail_mass * (std::log(row.tail_mass) - std::log(tested_mass));
  // Stored as float, the least probable kept token may be rounded down; 1e-6 covers that.
  const double cap = std::exp(static_cast<double>(row.log_probs.back())) * (1.0 + 1e-6);
  const auto n_used = static_cast<size_t>(std::min(static_cast<double>(tail.size()), std::ceil(row.tail_mass / cap)));
  std::partial_sort(tail.begin(), tail.begin() + static_cast<ptrdiff_t>(n_used), tail.end());
  double upper = row.tail_sum, left = row.tail_mass;
  for (size_t i = 0; i < n_used && left > 0.0; ++i) {
    const double p = std::min(left, cap);
    upper -= p * tail[i];
    left -= p;
  }
  drift.kl += lower;
  drift.kl_slack = std::max(upper - lower, 0.0);  // NaN stays NaN
  return drift;
}

void write_reference_file(const std::filesystem::path& path, OriginalModel& original, const ReferenceInfo& info,
                          OutputFile::Overwrite overwrite) {
  check_output_path(path, overwrite);
  prepare_library();
  const std::filesystem::path part = part_path(path);
  const auto n_chunks = static_cast<hsize_t>(original.chunks().size());
  const auto n_ctx = static_cast<hsize_t>(original.chunks().front().tokens.size());
  const auto n_top = static_cast<hsize_t>(std::min<int64_t>(kReferenceTop, original.n_vocab()));
  const hsize_t n_rows = n_chunks * static_cast<hsize_t>(scored_rows(static_cast<int64_t>(n_ctx)));
  try {
    const Handle file(H5Fcreate(part.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), H5Fclose, part.c_str(), OnError::kLeaveOpen);
    write_text(file, "schema", kSchema);
    write_text(file, "quern_version", kVersion);
    write_text(file, "model", info.model);
    write_text(file, "tokens_sha256", info.tokens_sha256);
    write_integer(file, "n_ctx", static_cast<int64_t>(n_ctx));
    write_integer(file, "n_chunks", static_cast<int64_t>(n_chunks));
    write_integer(file, "n_vocab", original.n_vocab());
    write_integer(file, "n_top", static_cast<int64_t>(n_top));
    write_integer(file, "bos_first", info.bos_first ? 1 : 0);
    const Handle tokens = make_dataset(file, "tokens", H5T_STD_I32LE, {n_chunks, n_ctx}, {1, n_ctx});
    for (hsize_t c = 0; c < n_chunks; ++c) write_rows(tokens, H5T_NATIVE_INT32, c, 1, n_ctx, original.chunks()[c].tokens.data());
    const hsize_t chunk_rows = std::min<hsize_t>(n_rows, 64), long_rows = std::min<hsize_t>(n_rows, 8192);
    const Handle ids = make_dataset(file, "top_ids", H5T_STD_I32LE, {n_rows, n_top}, {chunk_rows, n_top});
    const Handle log_probs = make_dataset(file, "top_log_probs", H5T_IEEE_F32LE, {n_rows, n_top}, {chunk_rows, n_top});
    const Handle tail_mass = make_dataset(file, "tail_mass", H5T_IEEE_F64LE, {n_rows}, {long_rows});
    const Handle tail_sum = make_dataset(file, "tail_sum", H5T_IEEE_F64LE, {n_rows}, {long_rows});
    const Handle nll = make_dataset(file, "nll", H5T_IEEE_F64LE, {n_rows}, {long_rows});
    hsize_t r = 0;
    std::vector<double> p;
    original.for_each_row([&](int64_t chunk, int64_t t, std::span<const float> logits) {
      log_softmax(logits, p);
      const ReferenceRow row =
          cut_row(p, original.chunks()[static_cast<size_t>(chunk)].tokens[static_cast<size_t>(t + 1)], static_cast<int64_t>(n_top));
      write_rows(ids, H5T_NATIVE_INT32, r, 1, n_top, row.ids.data());
      write_rows(log_probs, H5T_NATIVE_FLOAT, r, 1, n_top, row.log_probs.data());
      write_rows(tail_mass, H5T_NATIVE_DOUBLE, r, 1, 1, &row.tail_mass);
      write_rows(tail_sum, H5T_NATIVE_DOUBLE, r, 1, 1, &row.tail_sum);
      write_rows(nll, H5T_NATIVE_DOUBLE, r, 1, 1, &row.nll);
      ++r;
    });
    check(H5Fflush(file, H5F_SCOPE_GLOBAL), "write the file");
  } catch (Error& error) {
    std::error_code ignored;
    std::filesystem::remove(part, ignored);
    throw error.file(path.string());
  }
  OutputFile(path, overwrite, std::filesystem::file_size(part)).commit();
}

struct ReferenceFile::State {
  explicit State(const std::filesystem::path& path)
      : file(H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), H5Fclose, "the file (not HDF5?)") {}

  Handle file;
  int64_t n_ctx = 0, n_vocab = 0, n_top = 0;
  std::vector<Sequence> chunks;
  std::vector<std::vector<int32_t>> no_experts;
  std::vector<Handle> datasets;  // top_ids, top_log_probs, tail_mass, tail_sum, nll
  std::filesystem::path name;
  std::string tokens_sha256;
  int64_t first_position = 0;
  std::vector<ReferenceRow> rows;
};

ReferenceFile::ReferenceFile(const std::filesystem::path& path) {
  prepare_library();
  const InputFile readable(path);  // gives the plain errors of a missing file
  try {
    state_ = std::make_unique<State>(path);
    State& s = *state_;
    if (read_text(s.file, "schema") != kSchema)
      throw Error(ErrorKind::kFormat, std::string("is not a reference file of schema ") + kSchema);
    if (H5Aexists(s.file, "tokens_sha256") > 0) s.tokens_sha256 = read_text(s.file, "tokens_sha256");
    s.n_ctx = read_integer(s.file, "n_ctx");
    s.n_vocab = read_integer(s.file, "n_vocab");
    s.n_top = read_integer(s.file, "n_top");
    const int64_t n_chunks = read_integer(s.file, "n_chunks");
    const bool fits = s.n_ctx >= 4 && s.n_ctx <= kMaxTokens && n_chunks >= 1 && n_chunks <= kMaxTokens / s.n_ctx && s.n_vocab >= 1 &&
                      s.n_vocab <= kMaxVocab && s.n_top >= 1 && s.n_top <= std::min(s.n_vocab, kMaxTop);
    if (!fits) {
      throw Error(ErrorKind::kFormat, "context, vocabulary, chunks and kept tokens do not fit each other");
    }
    const auto n_rows = static_cast<hsize_t>(n_chunks * scored_rows(s.n_ctx)), n_top = static_cast<hsize_t>(s.n_top);
    const Handle tokens = open_dataset(s.file, "tokens", H5T_INTEGER, {static_cast<hsize_t>(n_chunks), static_cast<hsize_t>(s.n_ctx)});
    for (int64_t c = 0; c < n_chunks; ++c) {
      Sequence& chunk = s.chunks.emplace_back();
      chunk.tokens.resize(static_cast<size_t>(s.n_ctx));
      read_rows(tokens, H5T_NATIVE_INT32, static_cast<hsize_t>(c), 1, static_cast<hsize_t>(s.n_ctx), chunk.tokens.data());
      for (const int32_t token : chunk.tokens) {
        if (token < 0 || token >= s.n_vocab)
          throw Error(ErrorKind::kFormat, "token " + std::to_string(token) + " is outside the vocabulary");
      }
    }
    s.datasets.push_back(open_dataset(s.file, "top_ids", H5T_INTEGER, {n_rows, n_top}));
    s.datasets.push_back(open_dataset(s.file, "top_log_probs", H5T_FLOAT, {n_rows, n_top}));
    for (const char* name : {"tail_mass", "tail_sum", "nll"}) s.datasets.push_back(open_dataset(s.file, name, H5T_FLOAT, {n_rows}));
    s.name = path;
  } catch (Error& error) {
    throw error.file(path.string());
  }
}

ReferenceFile::~ReferenceFile() = default;

const std::vector<Sequence>& ReferenceFile::chunks() const noexcept { return state_->chunks; }
int64_t ReferenceFile::n_vocab() const noexcept { return state_->n_vocab; }
std::string ReferenceFile::tokens_sha256() const { return state_->tokens_sha256; }
const std::vector<std::vector<int32_t>>& ReferenceFile::experts() const noexcept { return state_->no_experts; }

void ReferenceFile::begin_rows(int64_t chunk, int64_t first, int64_t n) {
  State& s = *state_;
  const auto row = static_cast<hsize_t>(chunk * scored_rows(s.n_ctx) + first - s.n_ctx / 2), count = static_cast<hsize_t>(n);
  const auto n_top = static_cast<size_t>(s.n_top), n_rows = static_cast<size_t>(n);
  std::vector<int32_t> ids(n_rows * n_top);
  std::vector<float> log_probs(n_rows * n_top);
  std::vector<double> mass(n_rows), sum(n_rows), nll(n_rows);
  read_rows(s.datasets[0], H5T_NATIVE_INT32, row, count, n_top, ids.data());
  read_rows(s.datasets[1], H5T_NATIVE_FLOAT, row, count, n_top, log_probs.data());
  read_rows(s.datasets[2], H5T_NATIVE_DOUBLE, row, count, 1, mass.data());
  read_rows(s.datasets[3], H5T_NATIVE_DOUBLE, row, count, 1, sum.data());
  read_rows(s.datasets[4], H5T_NATIVE_DOUBLE, row, count, 1, nll.data());
  s.first_position = first;
  s.rows.assign(n_rows, {});
  for (size_t i = 0; i < n_rows; ++i) {
    const auto begin = static_cast<ptrdiff_t>(i * n_top), end = begin + static_cast<ptrdiff_t>(n_top);
    s.rows[i] = {{ids.begin() + begin, ids.begin() + end}, {log_probs.begin() + begin, log_probs.begin() + end}, mass[i], sum[i], nll[i]};
    const int64_t position = first + static_cast<int64_t>(i);
    const int32_t next = s.chunks[static_cast<size_t>(chunk)].tokens[static_cast<size_t>(position + 1)];
    if (const std::string why = why_no_distribution(s.rows[i], s.n_vocab, next); !why.empty()) refuse_row(s.name, chunk, position, why);
  }
}

TokenDrift ReferenceFile::compare(int64_t chunk, int64_t t, std::span<const float> tested) const {
  std::vector<double> q;
  log_softmax(tested, q);
  const int32_t next = state_->chunks[static_cast<size_t>(chunk)].tokens[static_cast<size_t>(t + 1)];
  return compare_cut(state_->rows[static_cast<size_t>(t - state_->first_position)], q, next);
}

}  // namespace quern
