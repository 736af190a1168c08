package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync/atomic"
)

// request is a line of standard input: a step, and what it needs of the rest.
type request struct {
	Step string `json:"step"`

	Mount    string `json:"mount"`
	Role     string `json:"role"`
	JWTFile  string `json:"jwtFile"`
	Token    string `json:"token"`
	Accessor string `json:"accessor"`
	// Increment is in seconds.
	Increment int            `json:"increment"`
	Path      string         `json:"path"`
	Data      map[string]any `json:"data"`
}

// outcome is the answer to a request. Data is what the library returned, as it
// returned it; Status is 0 if no server answered.
type outcome struct {
	Step   string `json:"step"`
	OK     bool   `json:"ok"`
	Status int64  `json:"status"`
	Error  string `json:"error,omitempty"`
	Data   any    `json:"data"`
}

// A step is something that a library can do.
type step func(ctx context.Context, asked request) (any, error)

// libraries make a client's steps by the name of the library. The two libraries
// have one ancestor and no type in common.
var libraries = map[string]struct {
	module string
	steps  func(address, caFile string, observe func(http.RoundTripper) http.RoundTripper) (map[string]step, error)
}{
	"vault":   {"github.com/hashicorp/vault/api", vaultSteps},
	"openbao": {"github.com/openbao/openbao/api/v2", openbaoSteps},
}

// runClient takes one step after the other until standard input is closed, each
// with the token that the last login left.
func runClient(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("client", flag.ExitOnError)
	address := flags.String("address", "", "`URL` of the server")
	caFile := flags.String("ca", "", "PEM `FILE` of the CA of the server's certificate; the system's if absent")
	if len(args) == 0 || libraries[args[0]].steps == nil {
		return errors.New("which client: vault or openbao?")
	}
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	if *address == "" || flags.NArg() > 0 {
		return errors.New("--address is required, and nothing else but --ca is taken")
	}
	library := libraries[args[0]]
	version, err := moduleVersion(library.module)
	if err != nil {
		return err
	}
	var observed statusObserver
	steps, err := library.steps(*address, *caFile, observed.watch)
	if err != nil {
		return err
	}
	outcomes := json.NewEncoder(os.Stdout)
	if err := outcomes.Encode(map[string]any{"ready": true, "version": version}); err != nil {
		return err
	}

	requests := json.NewDecoder(os.Stdin)
	for {
		var asked request
		if err := requests.Decode(&asked); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("standard input must hold one JSON object per line: %w", err)
		}
		take, known := steps[asked.Step]
		if !known {
			return fmt.Errorf("no step %q", asked.Step)
		}
		observed.status.Store(0)
		learned, refusal := take(ctx, asked)
		result := outcome{Step: asked.Step, OK: refusal == nil, Status: observed.status.Load(), Data: learned}
		if refusal != nil {
			result.Error = refusal.Error()
		}
		if err := outcomes.Encode(result); err != nil {
			return err
		}
	}
}

// statusObserver remembers the status of the last answer, which the libraries
// keep to themselves unless it is an error.
type statusObserver struct{ status atomic.Int64 }

func (o *statusObserver) watch(transport http.RoundTripper) http.RoundTripper {
	return roundTripper(func(request *http.Request) (*http.Response, error) {
		response, err := transport.RoundTrip(request)
		if err == nil {
			o.status.Store(int64(response.StatusCode))
		}
		return response, err
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(request *http.Request) (*http.Response, error) { return f(request) }
