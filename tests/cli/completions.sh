# The manual page and the completions have every verb and every option whole, those too that --help has no room for.
page=$("$DATA/../../docs/man/make.sh" "$QUERN" | sed -e 's/\\-/-/g' -e 's/\\e/\\/g')
for shell in bash zsh fish; do "$QUERN" generate $shell >$shell || exit; done
has() { grep -qF -- "$2" <<<"$1" || echo "$3 lacks: $2"; }
n_options=0
for verb in $("$QUERN" --help | sed -nE '3,$ { /^Options/! s/^.{9}([a-z]+) .*/\1/p }'); do
  has "$page" ".SS quern $verb " page
  section=$(sed -n "/^\.SS quern $verb /,/^\.SS/p" <<<"$page")
  # sections of a verb: a line, the lines up to the next verb, the lines that name it
  in_bash=$(grep -E "^    $verb\)" bash) in_zsh=$(sed -n "/^    $verb)/,/;;/p" zsh) in_fish=$(grep -E "from $verb'" fish)
  has "$(grep use_subcommand fish)" "-a $verb " fish
  while IFS= read -r line; do
    [[ $line == ?????????[-A-Z]* ]] || continue
    names=${line:9:25} what=${line:34}
    for word in $names; do
      word=${word%,}
      [[ $word == -* ]] || continue
      ((++n_options))
      has " ${in_bash//\'/ } " " $word " "bash $verb"
      has "$in_zsh" "$word[" "zsh $verb"
      if [[ $word == --* ]]; then has "$in_fish " "-l ${word#--} " "fish $verb"; else has "$in_fish" "-s ${word#-} " "fish $verb"; fi
    done
    [[ $line == Help* || $names == *--help* || $names == *--quiet* ]] && continue
    while IFS= read -r sentence; do  # flags may share a line
      has "$section" "$sentence" "page $verb"
    done < <(sed 's| / |\n|g' <<<"$what")
  done < <("$QUERN" "$verb" --help-all | tail -n +3)
done
((n_options > 250)) || echo "only $n_options options were looked at"
grep -n '@' <<<"$page"
for type in Q4_K_M IQ2_XXS Q5_1 lossless; do has "$(sed -n '/^\.SH TYPES/,/^\.SH FILES/p' <<<"$page")" "$type" page; done
for section in OPTIONS VERBS TYPES FILES ENVIRONMENT "EXIT STATUS" "SEE ALSO"; do has "$page" ".SH $section" page; done

# What bash makes of it.
source ./bash || exit
complete_line() { COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)); _quern; echo "${*: -1}: ${COMPREPLY[*]}"; }
touch model.gguf
complete_line quern pub
complete_line quern help ver
complete_line quern convert --ten
complete_line quern convert model --type Q4_K
complete_line quern plan --machine mac-m3-ultra-2
complete_line quern inspect mod
"$QUERN" generate tcsh; echo "exit $?"
