/// Completion of commands, options and values for shells, made from the table of options.
public enum ShellCompletion: String, CaseIterable, Sendable {
    case bash, zsh, fish

    /// The script for `commands` of `ironling` and for `programs` that are one command each.
    public func script(_ commands: [CommandEntry], programs: [CommandLineOptions]) -> String {
        switch self {
        case .bash: bash(commands, programs)
        case .zsh: zsh(commands, programs)
        case .fish: fish(commands, programs)
        }
    }

    private static func flags(_ options: CommandLineOptions) -> [CommandLineOption] {
        options.options + CommandLineOptions.universal
    }

    /// The words that may follow `words`, with what they do: a group has the sentence of its first command.
    private static func next(_ words: [String], _ commands: [CommandEntry]) -> [(word: String, sentence: String)] {
        var found: [(word: String, sentence: String)] = []
        for command in commands where command.words.starts(with: words) && command.words.count > words.count {
            let word = command.words[words.count]
            if !found.contains(where: { $0.word == word }) { found.append((word, command.sentence)) }
        }
        return found
    }

    // MARK: bash

    private func bash(_ commands: [CommandEntry], _ programs: [CommandLineOptions]) -> String {
        var text = """
            # Completion of ironling for bash: source <(ironling completion bash)
            _ironling() {
                local word="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}"
                local command="${COMP_WORDS[0]##*/}" i
                if [[ $command == ironling ]]; then
                    for ((i = 1; i < COMP_CWORD; i++)); do
                        [[ ${COMP_WORDS[i]} == -* ]] && break
                        case "$command ${COMP_WORDS[i]}" in

            """
        let known = commands.flatMap { command in
            command.words.indices.map { "ironling " + command.words[...$0].joined(separator: " ") }
        }
        for name in Set(known).sorted() { text += "                \"\(name)\") command=\"\(name)\" ;;\n" }
        text += """
                        *) break ;;
                        esac
                    done
                fi
                COMPREPLY=()
                case "$command" in

            """
        let groups = Set(commands.filter { $0.words.count > 1 }.map { $0.words[0] }).sorted()
        for words in [[]] + groups.map({ [$0] }) {
            let list = Self.next(words, commands).map(\.word) + ["--help", "--version"]
            let name = (["ironling"] + words).joined(separator: " ")
            text += "    \"\(name)\") COMPREPLY=($(compgen -W \"\(list.joined(separator: " "))\" -- \"$word\")) ;;\n"
        }
        for command in commands { text += Self.bash("ironling \(command.name)", command.options) }
        for program in programs { text += Self.bash(program.program, program) }
        let names = ["ironling"] + programs.map(\.program)
        return text + "    esac\n}\ncomplete -F _ironling \(names.joined(separator: " "))\n"
    }

    private static func bash(_ name: String, _ options: CommandLineOptions) -> String {
        var text = "    \"\(name)\")\n        case \"$before\" in\n"
        for option in options.options {
            let names = "        --\(option.name)) "
            switch option.offer {
            case .words(let words):
                text +=
                    names + "COMPREPLY=($(compgen -W \"\(words.joined(separator: " "))\" -- \"$word\")); return ;;\n"
            case .files: text += names + "compopt -o filenames; COMPREPLY=($(compgen -f -- \"$word\")); return ;;\n"
            case .folders: text += names + "compopt -o filenames; COMPREPLY=($(compgen -d -- \"$word\")); return ;;\n"
            case .nothing: if option.value != nil { text += names + "return ;;\n" }
            }
        }
        text += "        esac\n"
        let flags = flags(options).map { "--\($0.name)" }.joined(separator: " ")
        let position = options.options.first { $0.name == options.position }
        if position?.offer == .folders {
            text +=
                "        if [[ $word != -* ]]; then compopt -o filenames; COMPREPLY=($(compgen -d -- \"$word\")); return; fi\n"
        } else if case .words(let words) = position?.offer {
            text +=
                "        if [[ $word != -* ]]; then COMPREPLY=($(compgen -W \"\(words.joined(separator: " "))\" -- \"$word\")); return; fi\n"
        }
        return text + "        COMPREPLY=($(compgen -W \"\(flags)\" -- \"$word\"))\n        ;;\n"
    }

    // MARK: zsh

    private func zsh(_ commands: [CommandEntry], _ programs: [CommandLineOptions]) -> String {
        let names = ["ironling"] + programs.map(\.program)
        var text = """
            #compdef \(names.joined(separator: " "))
            # Completion of ironling for zsh: source <(ironling completion zsh), or a file _ironling in $fpath.
            _ironling() {
                local command="${words[1]:t}"
                local -a offered
                if [[ $command == ironling ]]; then

            """
        let groups = Set(commands.filter { $0.words.count > 1 }.map { $0.words[0] }).sorted()
        text += Self.zsh("(( CURRENT == 2 ))", Self.next([], commands))
        for group in groups {
            text += Self.zsh("(( CURRENT == 3 )) && [[ $words[2] == \(group) ]]", Self.next([group], commands))
        }
        text += "        case \"$words[2] $words[3]\" in\n"
        for command in commands.sorted(by: { $0.words.count > $1.words.count }) {
            let pattern = command.words.count > 1 ? "\"\(command.name)\"" : "\(command.name)\\ *"
            let count = command.words.count
            text +=
                "        \(pattern)) command=\"ironling \(command.name)\"; shift \(count) words; (( CURRENT -= \(count) )) ;;\n"
        }
        text += "        esac\n    fi\n    case \"$command\" in\n"
        for command in commands { text += Self.zsh("ironling \(command.name)", command.options) }
        for program in programs { text += Self.zsh(program.program, program) }
        return text + "    esac\n}\nif [[ $funcstack[1] == _ironling ]]; then _ironling \"$@\"; else compdef _ironling "
            + names.joined(separator: " ") + "; fi\n"
    }

    private static func zsh(_ condition: String, _ words: [(word: String, sentence: String)]) -> String {
        var text = "        if \(condition); then\n            offered=(\n"
        for (word, sentence) in words { text += "                '\(word):\(quoted(sentence))'\n" }
        return text + "            )\n            _describe command offered\n            return\n        fi\n"
    }

    private static func zsh(_ name: String, _ options: CommandLineOptions) -> String {
        var text = "    \"\(name)\")\n        _arguments"
        for option in flags(options) {
            let about = "[\(bracketed(option.sentence))]"
            let value = option.value.map { bracketed($0).replacing(":", with: "\\:") } ?? ""
            switch option.offer {
            case .words(let words):
                text += " \\\n            '--\(option.name)\(about):\(value):(\(words.joined(separator: " ")))'"
            case .files: text += " \\\n            '--\(option.name)\(about):\(value):_files'"
            case .folders: text += " \\\n            '--\(option.name)\(about):\(value):_files -/'"
            case .nothing:
                text += " \\\n            '--\(option.name)\(about)" + (option.value == nil ? "'" : ":\(value): '")
            }
        }
        if let position = options.options.first(where: { $0.name == options.position }) {
            switch position.offer {
            case .folders: text += " \\\n            '1:folder:_files -/'"
            case .words(let words): text += " \\\n            '1:\(position.name):(\(words.joined(separator: " ")))'"
            default: break
            }
        }
        return text + "\n        ;;\n"
    }

    private static func quoted(_ text: String) -> String {
        text.replacing("'", with: "'\\''").replacing(":", with: "\\:")
    }

    private static func bracketed(_ text: String) -> String {
        text.replacing("'", with: "'\\''").replacing("[", with: "\\[").replacing("]", with: "\\]")
    }

    // MARK: fish

    private func fish(_ commands: [CommandEntry], _ programs: [CommandLineOptions]) -> String {
        var text = """
            # Completion of ironling for fish: ironling completion fish | source
            function __ironling_at
                set -l words (commandline -opc)
                set -e words[1]
                set -l given
                for word in $words
                    string match -q -- '-*' $word; and break
                    set -a given $word
                end
                set -l count (count $argv)
                test "$given[1..$count]" = "$argv"
            end
            function __ironling_ends
                set -l words (commandline -opc)
                test (count $words) -eq (math 1 + (count $argv)); or return 1
                test (count $argv) -eq 0; or __ironling_at $argv
            end
            complete -c ironling -f

            """
        for (word, sentence) in Self.next([], commands) {
            text += "complete -c ironling -n __ironling_ends -a \(word) -d '\(Self.escaped(sentence))'\n"
        }
        for group in Set(commands.filter { $0.words.count > 1 }.map { $0.words[0] }).sorted() {
            for (word, sentence) in Self.next([group], commands) {
                text += "complete -c ironling -n '__ironling_ends \(group)' -a \(word) -d '\(Self.escaped(sentence))'\n"
            }
        }
        for command in commands {
            text += Self.fish("ironling -n '__ironling_at \(command.name)'", command.options)
        }
        for program in programs { text += "complete -c \(program.program) -f\n" + Self.fish(program.program, program) }
        return text
    }

    private static func fish(_ start: String, _ options: CommandLineOptions) -> String {
        var text = ""
        for option in flags(options) {
            var line = "complete -c \(start) -l \(option.name) -d '\(escaped(option.sentence))'"
            switch option.offer {
            case .words(let words): line += " -x -a '\(words.joined(separator: " "))'"
            case .files: line += " -r -F"
            case .folders: line += " -x -a '(__fish_complete_directories)'"
            case .nothing: if option.value != nil { line += " -x" }
            }
            text += line + "\n"
        }
        let position = options.options.first { $0.name == options.position }
        if position?.offer == .folders { text += "complete -c \(start) -a '(__fish_complete_directories)'\n" }
        if case .words(let words) = position?.offer {
            text += "complete -c \(start) -a '\(words.joined(separator: " "))'\n"
        }
        return text
    }

    private static func escaped(_ text: String) -> String {
        text.replacing("\\", with: "\\\\").replacing("'", with: "\\'")
    }
}
