import java.io.File;
import java.net.URL;
import java.net.URLClassLoader;
import java.util.ArrayList;
import java.util.List;

/**
 * The system class loader of a job server that must not send its archives with every job: it loads
 * classes from the folders of the property "archives" but lists no URLs. The cluster has the same
 * archives on its class path.
 *
 * <p>java -Djava.system.class.loader=Archives -Darchives=FOLDER:FOLDER CLASS
 */
public class Archives extends URLClassLoader {
  public Archives(ClassLoader parent) throws Exception {
    super(found(), ClassLoader.getPlatformClassLoader());
  }

  private static URL[] found() throws Exception {
    List<URL> archives = new ArrayList<>();
    for (String folder : System.getProperty("archives").split(File.pathSeparator)) {
      for (File file : new File(folder).listFiles()) {
        archives.add(file.toURI().toURL());
      }
    }
    return archives.toArray(new URL[0]);
  }

  @Override
  public URL[] getURLs() {
    return new URL[0];
  }
}
