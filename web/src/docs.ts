/** The page /docs: the HTTP API, described and to be tried out. Swagger UI comes with the package. */

import "swagger-ui-dist/swagger-ui.css";
// @ts-expect-error: the package has no types
import SwaggerUI from "swagger-ui-dist/swagger-ui-es-bundle.js";

SwaggerUI({
  url: new URL("openapi.json", document.baseURI).href,
  domNode: document.getElementById("docs"),
  deepLinking: true,
  docExpansion: "list",
  defaultModelsExpandDepth: -1,
  // a validator of another server would be requested otherwise
  validatorUrl: null,
});
