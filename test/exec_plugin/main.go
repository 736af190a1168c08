// Command exec-plugin is both sides of an exec plugin that talks to a SPIFFE
// Workload API: the Workload API itself, which can also be made to behave as no
// real one should, and client-go, which runs plugins as kubectl does.
//
//	exec-plugin server --address ADDRESS --key FILE --key-id KID --issuer URL
//	exec-plugin client --kubeconfig FILE
//	exec-plugin stopwatch
//
// README.md describes what goes in and what comes out. An answer, good or bad,
// is a line on standard output; a non-zero exit status means that there is none.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
)

// commands are the sub-commands by name. Each parses its own arguments.
var commands = map[string]func(args []string) error{
	"server":    runServer,
	"client":    runClient,
	"stopwatch": runStopwatch,
}

func main() {
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: exec-plugin server|client|stopwatch [flags]")
		os.Exit(2)
	}
	if err := commands[os.Args[1]](os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "exec-plugin:", err)
		os.Exit(1)
	}
}

// parseRequired parses args and insists that every flag is given.
func parseRequired(flags *flag.FlagSet, args []string) error {
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	var missing []error
	flags.VisitAll(func(f *flag.Flag) {
		if f.Value.String() == "" {
			missing = append(missing, fmt.Errorf("flag --%s is required", f.Name))
		}
	})
	return errors.Join(missing...)
}

// serve announces that the program is ready, then answers each line of
// standard input, a JSON object of type Q, until it is closed.
func serve[Q any](answer func(Q) any) error {
	answers := json.NewEncoder(os.Stdout)
	if err := answers.Encode(map[string]any{"ready": true}); err != nil {
		return err
	}
	questions := json.NewDecoder(os.Stdin)
	questions.DisallowUnknownFields()
	for {
		var question Q
		if err := questions.Decode(&question); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("standard input: %w", err)
		}
		if err := answers.Encode(answer(question)); err != nil {
			return err
		}
	}
}
