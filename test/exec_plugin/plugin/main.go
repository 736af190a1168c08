// Command go-spiffe-plugin does what the seed's k8s-spiffe-workload-jwt-exec-auth
// 0.0.6 does, and no more: the least that a credential from a Workload API costs
// in Go, and what to compare answers with. Its defects are kept: expiry is later
// than the token's, and without a Workload API or an identity it waits for ever.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

func main() {
	ctx := context.Background()
	source, err := workloadapi.New(ctx, workloadapi.WithAddr(variable("SPIFFE_ENDPOINT_SOCKET", "unix:///tmp/spire-agent/public/api.sock")))
	exitOn(err)
	var svid *jwtsvid.SVID
	for svid == nil {
		svid, err = source.FetchJWTSVID(ctx, jwtsvid.Params{Audience: variable("SPIFFE_JWT_AUDIENCE", "k8s")})
		if err != nil {
			time.Sleep(time.Second)
		}
	}
	expiry := svid.Expiry.Add(time.Until(svid.Expiry) / 2)
	fmt.Printf("apiVersion: client.authentication.k8s.io/%s\nkind: ExecCredential\nspec:\n  interactive: false\nstatus:\n  expirationTimestamp: %q\n  token: %s\n",
		variable("EXEC_CREDENTIAL_VERSION", "v1"), expiry.UTC().Format(time.RFC3339), svid.Marshal())
}

func variable(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

func exitOn(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
