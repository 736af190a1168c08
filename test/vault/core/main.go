// Command vault-core is Vault itself, as far as its modules can be built: its
// core and HTTP server with the Kubernetes auth method and nothing else, and the
// auto-auth of Vault Agent.
//
//	vault-core server
//	vault-core agent --address URL [--ca FILE] --mount NAME --role NAME --jwt FILE --sink FILE
//
// ../README.md describes both. They end when standard input is closed.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
)

// commands are the sub-commands by name. Each prints a line when it is ready
// and works until ctx ends.
var commands = map[string]func(ctx context.Context, args []string) error{
	"server": serve,
	"agent":  authenticate,
}

func main() {
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: vault-core server|agent [flags]")
		os.Exit(2)
	}
	ctx, end := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		end()
	}()
	if err := commands[os.Args[1]](ctx, os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "vault-core:", err)
		os.Exit(1)
	}
}
