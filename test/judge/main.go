// Command judge lets real relying parties judge what this issuer produces: the
// JWT authenticator of kube-apiserver, go-spiffe and go-oidc, each as the
// library that its own product is built from.
//
//	judge validate [--disallowed-issuer URL]... FILE...
//	judge kube     --authentication-config FILE
//	judge spiffe   --issuer URL --ca FILE --trust-domain NAME --audience NAME
//	judge oidc     --issuer URL --ca FILE --audience NAME
//	judge x509
//	judge federation --issuer URL --ca FILE --trust-domain NAME --audience NAME
//	judge mtls     --folder FOLDER
//
// README.md describes what goes in and what comes out. A verdict, good or bad,
// is always a line on standard output; a non-zero exit status means that there
// is no verdict, so that a test of a refusal can't pass because of a mistyped
// path or an issuer that isn't there.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime/debug"
	"time"
)

// startTimeout bounds how long a relying party may take to get hold of the
// issuer's keys. The kube-apiserver's authenticator retries every ten seconds,
// so an issuer that comes up late gets a second chance.
const startTimeout = 20 * time.Second

// commands are the sub-commands by name. Each parses its own arguments.
var commands = map[string]func(ctx context.Context, args []string) error{
	"validate":   validate,
	"kube":       judgeByKube,
	"spiffe":     judgeBySPIFFE,
	"oidc":       judgeByOIDC,
	"x509":       judgeX509SVID,
	"federation": judgeByFederation,
	"mtls":       talkByMTLS,
}

func main() {
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: judge validate|kube|spiffe|oidc|x509|federation|mtls [flags]")
		os.Exit(2)
	}
	if err := commands[os.Args[1]](context.Background(), os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "judge:", err)
		os.Exit(1)
	}
}

// parseRequired parses args and insists that every flag is given. Only for
// commands whose flags are all required and that take no further arguments.
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

// facts are what a relying party learned from a token that it accepts.
type facts map[string]any

// A relyingParty accepts a token, or refuses it with an error that says why.
type relyingParty func(token string) (facts, error)

// serve announces which release of which module judges, then answers the
// tokens on standard input one by one until it is closed.
func serve(module string, judge relyingParty) error {
	version, err := moduleVersion(module)
	if err != nil {
		return err
	}
	answers := json.NewEncoder(os.Stdout)
	if err := answers.Encode(map[string]any{"ready": true, "version": version}); err != nil {
		return err
	}

	tokens := json.NewDecoder(os.Stdin)
	for {
		var token string
		if err := tokens.Decode(&token); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("standard input must hold one JSON string per line: %w", err)
		}
		if err := answers.Encode(verdict(judge(token))); err != nil {
			return err
		}
	}
}

// verdict turns the outcome of a relying party into the answer's members.
func verdict(learned facts, refusal error) facts {
	if refusal != nil {
		return facts{"ok": false, "error": refusal.Error()}
	}
	answer := facts{"ok": true}
	maps.Copy(answer, learned)
	return answer
}

// moduleVersion names the release of a dependency that this binary was linked
// with. The build knows; a constant here could only be wrong.
func moduleVersion(path string) (string, error) {
	build, ok := debug.ReadBuildInfo()
	if !ok {
		return "", errors.New("built without module support")
	}
	for _, dependency := range build.Deps {
		if dependency.Path == path {
			return dependency.Path + " " + dependency.Version, nil
		}
	}
	return "", fmt.Errorf("built without %s", path)
}
