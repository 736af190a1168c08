// Command vault-peers is the other side of a Vault-compatible API: Vault's own
// Kubernetes auth plugin to compare answers with, and the client libraries of
// Vault and OpenBao to be served.
//
//	vault-peers plugin
//	vault-peers client vault|openbao --address URL [--ca FILE]
//
// README.md describes what goes in and what comes out. An answer, good or bad,
// is a line on standard output; a non-zero exit status means that there is none.
package main

import (
	"context"
	"fmt"
	"os"
)

// commands are the sub-commands by name. Each parses its own arguments.
var commands = map[string]func(ctx context.Context, args []string) error{
	"plugin": answerAsPlugin,
	"client": runClient,
}

func main() {
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: vault-peers plugin|client [arguments]")
		os.Exit(2)
	}
	if err := commands[os.Args[1]](context.Background(), os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "vault-peers:", err)
		os.Exit(1)
	}
}
