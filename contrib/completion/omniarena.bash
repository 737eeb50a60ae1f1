# bash completion for omniarena(1). The keys are those of "omniarena --help", so that there is no second list of them.
# shellcheck shell=bash

_omniarena_keys()
{
	"${COMP_WORDS[0]}" --help 2>/dev/null | sed -n 's/^  \(--[a-z-]*\).*/\1/p'
}

_omniarena()
{
	local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} command=${COMP_WORDS[1]} own=''

	COMPREPLY=()
	# "--profile=0" is three words to bash
	if [[ $word == = ]]; then
		word=''
	elif [[ $before == = ]]; then
		before=${COMP_WORDS[COMP_CWORD - 2]}
	fi
	case $before in
	--profile) mapfile -t COMPREPLY < <(compgen -W '0 1 2 strict moderate permissive' -- "$word"); return ;;
	--require-isolation) mapfile -t COMPREPLY < <(compgen -W 'any kernel' -- "$word"); return ;;
	--listen) mapfile -t COMPREPLY < <(compgen -W '127.0.0.1 ::1 localhost 0.0.0.0 ::' -- "$word"); return ;;
	--config | --token-file | --audit-log) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$word"); return ;;
	--state-dir) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -d -- "$word"); return ;;
	--agent | --timeout | --port | --max-* | --*-ms | --*-bytes | --*-cells | --*-limit | --*-slots | --*-keep | --*-budget | --*-origin | --*-connections) return ;;
	esac
	if ((COMP_CWORD == 1)) && [[ $word != -* ]]; then
		mapfile -t COMPREPLY < <(compgen -W 'check verify token exec mcp tail top doctor' -- "$word")
		return
	fi
	case $command in
	exec) own='--json --agent --timeout --standalone' ;;
	mcp) own='--agent --standalone' ;;
	tail | top) own='--agent' ;;
	token) own='--new' ;;
	verify) [[ $word == -* ]] || { compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$word"); return; } ;;
	esac
	[[ $word != -* ]] || mapfile -t COMPREPLY < <(compgen -W "$own $(_omniarena_keys)" -- "$word")
}

complete -F _omniarena omniarena
